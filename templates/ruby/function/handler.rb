# frozen_string_literal: true

# Answers calls: `event` is the request, `context` knows the function and the call.
class Handler
  def call(event, context)
    { statusCode: 200, headers: { "Content-Type" => "text/plain" }, body: "#{event.method} #{event.path}: #{event.text}" }
  end
end
