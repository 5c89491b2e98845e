# frozen_string_literal: true

require "json"
require "timeout"

module Stoker
  class BadAnswer < StandardError; end

  # Health, readiness, metrics, the limits of calls at once, the timeout (contract section 8.5), and the answers.
  class Front
    PLAIN = "text/plain; charset=utf-8"
    NOT_A_HANDLERS = %w[content-length transfer-encoding connection keep-alive upgrade trailer].freeze

    attr_accessor :draining

    def initialize(settings, log, handler, state)
      @settings = settings
      @log = log
      @handler = handler
      @state = state
      @mutex = Mutex.new
      @turn = ConditionVariable.new
      @running = 0
      @waiting = 0
      @unhealthy = ""
      @sick_since = 0.0
      @counts = Hash.new { |hash, key| hash[key] = [0, 0.0] }
    end

    def idle?
      @mutex.synchronize { @running.zero? && @waiting.zero? }
    end

    # What the hook `health` says; an empty reason when it is well again.
    def unhealthy!(reason)
      @sick_since = clock
      @unhealthy = reason.split.join(" ")[0, 200]
    end

    def service(request, response)
      begun = clock
      return if request.unparsed_uri.start_with?("/_/") && own_page(request, response)

      call(request, response, request["x-call-id"] || "-", begun)
      count(request.request_method, response.status, clock - begun)
    end

    def answer_metrics(response)
      answer(response, 200, metrics, "text/plain; version=0.0.4; charset=utf-8")
    end

    private

    def own_page(request, response)
      path = request.unparsed_uri
      return false unless ["/_/health", "/_/ready", "/_/metrics"].include?(path)

      if request.request_method != "GET" then answer(response, 405, "")
      elsif path == "/_/metrics" then answer_metrics(response)
      elsif draining then answer(response, 503, "draining\n")
      elsif refuses?(path) then answer(response, 503, "unhealthy: #{@unhealthy}\n")
      elsif path == "/_/ready" && full? then answer(response, 429, "at max_inflight\n")
      else answer(response, 200, "OK")
      end
      true
    end

    # Readiness at once, health when it is better replaced.
    def refuses?(path)
      return false if @unhealthy.empty?

      after = @settings[:replace_after]
      path == "/_/ready" || (after.positive? && clock - @sick_since >= after)
    end

    def full?
      @settings[:max_inflight].positive? && @running >= @settings[:max_inflight]
    end

    # A thread for the handler, so that the timeout can end it.
    def call(request, response, id, begun)
      event = Event.new(request)
      event.body # whole before the handler begins
      admitted = admit(begun)
      return refuse(response) if admitted == :full
      return timed_out(response) if admitted == :late

      streams = false
      result = run(event, Context.new(@settings, @state, id), id, begun)
      return timed_out(response) if result == :timeout
      return failed(response, id, result) if result.is_a?(Exception)

      streams = fill(response, result, id, begun)
    rescue BadAnswer => e
      failed(response, id, e)
    ensure
      leave unless streams
    end

    # True with a place, at once or after waiting; else why there is none.
    def admit(begun)
      @mutex.synchronize do
        return :full if full?

        most = @settings[:concurrency]
        @waiting += 1
        @turn.wait(@mutex, 0.1) while most.positive? && @running >= most && !late?(begun)
        @waiting -= 1
        return :late if most.positive? && @running >= most

        @running += 1
        Thread.current[:stoker_place] = true
      end
    end

    def leave
      return unless Thread.current[:stoker_place]

      Thread.current[:stoker_place] = false
      @mutex.synchronize do
        @running -= 1
        @turn.signal
      end
    end

    def run(event, context, id, begun)
      worker = Thread.new do
        Thread.current.report_on_exception = false
        Thread.current[:stoker_call] = id
        @handler.call(event, context)
      rescue Exception => e # whatever a handler raises, SystemExit included, is its failure
        e
      ensure
        $stdout.end_call if $stdout.respond_to?(:end_call)
      end
      return worker.value if worker.join(left(begun))

      worker.kill
      :timeout
    end

    def left(begun)
      @settings[:timeout].zero? ? nil : [@settings[:timeout] - (clock - begun), 0].max
    end

    def late?(begun)
      left(begun)&.zero?
    end

    def refuse(response)
      most = @settings[:max_inflight]
      answer(response, 429, "Concurrent request limit exceeded. Max concurrent requests: #{most}\n", "text/plain")
      response["X-OpenFaaS-Internal"] = "faas-middleware"
      response["X-Stoker-Error"] = "function; max-inflight"
    end

    def timed_out(response)
      answer(response, 504, format("the call took longer than the function's timeout (%g s)\n", @settings[:timeout]))
      response["X-Stoker-Error"] = "function; timeout"
    end

    def failed(response, id, error)
      @log.failure(id, "the handler failed", error)
      what = error.is_a?(BadAnswer) ? error.message : "the handler raised #{error.class}"
      answer(response, 500, "#{what}; the error is in the log under call id #{id}\n")
      response["X-Stoker-Error"] = "function; exception"
    end

    def answer(response, status, text, type = PLAIN)
      response.status = status
      response["Content-Type"] = type
      response.body = text
    end

    # Fills the response; true when its body is a stream, which goes on after this call.
    def fill(response, result, id, begun)
      parts = parts_of(result)
      response.status = parts[:status]
      streams = content(response, parts[:body], id, begun)
      parts[:headers].each do |name, value|
        next if NOT_A_HANDLERS.include?(name.to_s.downcase)

        Array(value).size > 1 ? Array(value).each { |one| response.cookies << one.to_s } : response[name.to_s] = Array(value).first.to_s
      end
      streams
    end

    def parts_of(result)
      named = result.is_a?(Hash) ? result.transform_keys(&:to_s) : {}
      if (named.keys & %w[statusCode status_code body headers]).empty?
        return { status: 200, headers: {}, body: result }
      end

      status = named["statusCode"] || named["status_code"] || 200
      raise BadAnswer, "the handler returned statusCode #{status.inspect}: use a number" unless (200..999).cover?(status)

      { status: status, headers: named["headers"] || {}, body: named["body"] }
    end

    def content(response, body, id, begun)
      case body
      when nil then answer(response, response.status, "")
      when String then answer(response, response.status, body, body.encoding == Encoding::BINARY ? "application/octet-stream" : PLAIN)
      when Hash, Array, Numeric, true, false then answer(response, response.status, JSON.generate(body), "application/json")
      else return stream(response, body, id, begun) if body.respond_to?(:each)

        raise BadAnswer, "the handler returned a #{body.class}: return text, a Hash or an Enumerator"
      end
      false
    end

    def stream(response, pieces, id, begun)
      response["Content-Type"] = PLAIN
      response.chunked = true
      response.ended = method(:leave)
      response.body = proc do |out|
        Thread.current[:stoker_call] = id
        Timeout.timeout(left(begun)) { pieces.each { |piece| out.write(piece.to_s) } }
      rescue SystemCallError
        raise # the client has gone
      rescue StandardError => e
        @log.failure(id, "the handler failed in the middle of its answer", e)
        raise IOError, "broken off"
      end
      true
    end

    def count(method, status, seconds)
      @mutex.synchronize do
        slot = @counts[[method, status]]
        slot[0] += 1
        slot[1] += seconds
      end
    end

    # The Prometheus text format; times without buckets.
    def metrics
      totals = ["# TYPE http_requests_total counter"]
      times = ["# TYPE http_request_duration_seconds summary"]
      @mutex.synchronize { @counts.to_a }.each do |(method, status), (number, seconds)|
        labels = %({code="#{status}",method="#{method.downcase}"})
        totals << "http_requests_total#{labels} #{number}"
        times << format("http_request_duration_seconds_sum%s %.6f", labels, seconds)
        times << "http_request_duration_seconds_count#{labels} #{number}"
      end
      [*totals, *times, "# TYPE http_requests_in_flight gauge", "http_requests_in_flight #{@running}", ""].join("\n")
    end

    def clock
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end
end
