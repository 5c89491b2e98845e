# frozen_string_literal: true

require "json"
require "socket"
require "webrick"
require_relative "event"
require_relative "front"
require_relative "log"

# The life of the process: load, open, say ready, serve, drain, end. Under Stoker it gets a listening socket; without one,
# as in a container, it listens on `port`.
module Stoker
  LOCK = "/tmp/.lock"

  # Of WEBrick's, but a POST may have no body at all.
  class Request < WEBrick::HTTPRequest
    private

    def read_body(socket, block)
      super unless self["content-length"].nil? && self["transfer-encoding"].nil?
    end
  end

  # Of WEBrick's; `ended` is called when it has been sent, or its client has gone.
  class Response < WEBrick::HTTPResponse
    attr_accessor :ended

    def send_response(socket)
      super
    ensure
      ended&.call
    end
  end

  # The page of the port that is for metrics alone, in a container.
  MetricsPage = Struct.new(:front) do
    def service(request, response)
      front.answer_metrics(response) if request.path == "/metrics"
    end
  end

  # WEBrick with everything going to the front.
  class Server < WEBrick::HTTPServer
    attr_accessor :front

    def create_request(config)
      Request.new(config)
    end

    def create_response(config)
      Response.new(config)
    end

    def service(request, response)
      response["Server"] = nil
      response.header.delete("server")
      front.service(request, response)
    end
  end

  module_function

  def serve(folder)
    settings = read_settings(ENV)
    log = Log.new(settings[:log])
    log.install
    Thread.report_on_exception = false
    code = "import-error"
    handler = load_handler(folder)
    code = "init-failed"
    state = handler.respond_to?(:init) ? handler.init : nil
    run(settings, log, handler, state)
  rescue Exception => e # also a SyntaxError in the handler
    log.failure("-", "the function could not start", e)
    reason = e.is_a?(ScriptError) ? "the handler cannot be loaded: " : "the handler failed while it started: "
    report(settings, failed: "#{reason}#{e.class}: #{e.message.lines.first&.strip}"[0, 2000], code: code || "cannot-start")
    exit!(1)
  end

  def run(settings, log, handler, state)
    front = Front.new(settings, log, handler, state)
    watch_health(settings, log, handler, front) if handler.respond_to?(:health)
    server = listen(settings, front)
    metrics = settings[:local] ? nil : listen_on(MetricsPage.new(front), settings[:metrics_port])
    stop = Queue.new
    %w[TERM INT].each { |signal| trap(signal) { stop << signal } }
    [server, metrics].compact.each { |one| Thread.new { one.start } }
    File.write(LOCK, "") if settings[:lock]
    report(settings, ready: {})
    stop.pop
    drain(settings, front, server)
    handler.close if handler.respond_to?(:close)
    exit!(0)
  end

  # Contract section 8.4: unready first, serve on for a while, then no new connections, then wait for the calls.
  def drain(settings, front, server)
    front.draining = true
    File.delete(LOCK) if settings[:lock] && File.exist?(LOCK)
    sleep(settings[:drain_delay])
    server.listeners.each(&:close)
    deadline = clock + (settings[:timeout].zero? ? 86_400 : settings[:timeout])
    sleep(0.01) until front.idle? || clock > deadline
    sleep(0.05) # the last answer is on its way
  end

  def listen(settings, front)
    return listen_on(front, settings[:port]) unless settings[:local]

    server = build(front)
    socket = Socket.for_fd(settings[:listener])
    kind = socket.local_address.unix? ? UNIXServer : TCPServer
    socket.autoclose = false
    server.listeners << kind.for_fd(settings[:listener])
    server
  end

  def listen_on(front, port)
    server = build(front)
    server.listeners << TCPServer.new("0.0.0.0", port)
    server
  end

  def build(front)
    silent = WEBrick::Log.new(File::NULL, 0)
    options = { DoNotListen: true, Logger: silent, AccessLog: [], MaxClients: 2000, RequestTimeout: 3600, ServerSoftware: "" }
    server = Server.new(options)
    server.front = front
    server
  end

  def load_handler(folder)
    $LOAD_PATH.unshift(File.join(folder, "function"))
    require File.join(folder, "function", "handler")
    return Object.const_get(:Handler).new if Object.const_defined?(:Handler)

    Main.new
  end

  # For a handler.rb that defines functions at its top level: handle, init, health, close.
  class Main
    def call(event, context)
      TOPLEVEL_BINDING.receiver.send(:handle, event, context)
    end

    %i[init health close].each do |name|
      define_method(name) { TOPLEVEL_BINDING.receiver.send(name) }
    end

    def respond_to?(name, include_all = false)
      return super unless %i[init health close].include?(name)

      Object.private_method_defined?(name)
    end
  end

  # The hook `health`: it fails by raising, by returning false, or by not answering in time.
  # Its first answer counts alone: what starts unhealthy is to get no call.
  def watch_health(settings, log, handler, front)
    tell = lambda do |reason|
      front.unhealthy!(reason)
      log.lines("-", ["health: #{reason}"]) unless reason.empty?
      report(settings, health: reason)
    end
    first = reason_of(settings, handler)
    tell.call(first) unless first.empty?
    Thread.new { ask_on(settings, handler, !first.empty?, tell) }
  end

  def ask_on(settings, handler, sick, tell)
    failures = successes = 0
    loop do
      sleep(settings[:health_period])
      reason = reason_of(settings, handler)
      failures, successes = reason.empty? ? [0, successes + 1] : [failures + 1, 0]
      if !sick && failures >= settings[:health_failures]
        sick = true
        tell.call(reason)
      elsif sick && successes >= settings[:health_successes]
        sick = false
        successes = 0
        tell.call("")
      end
    end
  end

  def reason_of(settings, handler)
    Timeout.timeout(settings[:health_timeout]) { handler.health == false ? "health returned false" : "" }
  rescue StandardError => e
    "#{e.class}: #{e.message}"
  end

  def report(settings, status)
    return if settings.nil? || settings[:status].negative?

    IO.for_fd(settings[:status], "w", autoclose: false).syswrite("#{JSON.generate(status)}\n")
  rescue SystemCallError
    nil # nobody listens any more
  end

  def read_settings(env)
    local = env.key?("STOKER_LISTENER")
    {
      local: local,
      listener: number(env["STOKER_LISTENER"], -1),
      status: number(env["STOKER_STATUS"], -1),
      log: env["STOKER_LOG"] || "",
      port: number(env["port"], 8080),
      lock: !local && !%w[true 1].include?(env["suppress_lock"]),
      timeout: duration(env["exec_timeout"], 30.0),
      max_inflight: number(env["max_inflight"], 0),
      concurrency: number(env["STOKER_CONCURRENCY"], 0),
      drain_delay: local ? 0 : duration(env["healthcheck_interval"], duration(env["write_timeout"], 30.0)),
      health_period: duration(env["STOKER_HEALTH_PERIOD"], 2.0),
      health_timeout: duration(env["STOKER_HEALTH_TIMEOUT"], 1.0),
      health_failures: [number(env["STOKER_HEALTH_FAILURES"], 3), 1].max,
      health_successes: [number(env["STOKER_HEALTH_SUCCESSES"], 1), 1].max,
      replace_after: duration(env["STOKER_REPLACE_AFTER"], 60.0),
      metrics_port: number(env["STOKER_METRICS_PORT"], 8081),
      secrets: env["STOKER_SECRETS"] || "/var/openfaas/secrets",
      function: env["OPENFAAS_NAME"] || "",
      namespace: env["OPENFAAS_NAMESPACE"] || ""
    }
  end

  def number(text, otherwise)
    text.to_s.match?(/\A\d+\z/) ? text.to_i : otherwise
  end

  # `1m30s`, `500ms`, or a bare number of seconds; what is none of these is the default.
  def duration(text, otherwise)
    return text.to_f if text.to_s.match?(/\A\d+(\.\d+)?\z/)
    return otherwise unless text.to_s.match?(/\A(\d+(\.\d+)?(ms|s|m|h))+\z/)

    units = { "ms" => 0.001, "s" => 1, "m" => 60, "h" => 3600 }
    text.scan(/(\d+(?:\.\d+)?)(ms|s|m|h)/).sum { |value, unit| value.to_f * units[unit] }
  end

  def clock
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
