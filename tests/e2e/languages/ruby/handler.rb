# frozen_string_literal: true

class Handler
  def initialize
    @mutex = Mutex.new
    @running = @most = 0
  end

  def init
    raise "no way to begin" if ENV["FAIL_INIT"]

    puts "opened"
    "opened"
  end

  def health
    raise "broken on purpose" if ENV["SICK"] && File.exist?(ENV["SICK"])
  end

  def close
    puts "closed"
  end

  def call(event, context)
    case event.path
    when "/echo" then event.body
    when "/answer" then { statusCode: 201, headers: { "X-One" => "1", "Content-Type" => "text/x-test" }, body: "made" }
    when "/fail" then fails
    when "/stream" then pieces
    when "/sleep" then sleep(event.text.to_f) && "slept"
    when "/print" then puts(event.text) || "printed"
    when "/request" then [event.method, event.path, event.raw_query, event.headers["x-test"]]
    when "/context"
      { function: context.function, namespace: context.namespace, call: context.call_id, state: context.state }
    when "/secret" then context.secret("api-key")
    when "/most" then count
    end
  end

  private

  def fails
    puts "about to fail"
    raise "the cause"
  end

  def pieces
    Enumerator.new do |out|
      out << "one\n"
      sleep 0.5
      out << "two\n"
    end
  end

  def count
    @mutex.synchronize { @most = [@most, @running += 1].max }
    sleep 0.05
    @mutex.synchronize { @running -= 1 }
    @most.to_s
  end
end
