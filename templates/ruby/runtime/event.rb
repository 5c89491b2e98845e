# frozen_string_literal: true

require "uri"

module Stoker
  # One request. `path` is as it was sent, not decoded.
  class Event
    attr_reader :method, :path, :raw_query, :headers

    def initialize(request)
      @request = request
      @method = request.request_method
      @path, _, @raw_query = request.unparsed_uri.partition("?")
      @headers = Headers.new(request)
    end

    # The body as bytes.
    def body
      @body ||= (@request.body || "").b
    end

    # The body as text; bytes that are no UTF-8 become U+FFFD.
    def text
      @text ||= body.dup.force_encoding("UTF-8").scrub
    end

    # The query's parameters; the first value of each name.
    def query
      @query ||= URI.decode_www_form(@raw_query).reverse.to_h
    end
  end

  # Request headers; the case of names does not matter.
  class Headers
    def initialize(request)
      @request = request
    end

    def [](name)
      @request[name]
    end

    def to_h
      @request.header.transform_values(&:first)
    end
  end

  # Where a call runs. `state` is what `init` gave.
  class Context
    attr_reader :call_id, :function, :namespace, :state

    def initialize(settings, state, call_id)
      @secrets = settings[:secrets]
      @function = settings[:function]
      @namespace = settings[:namespace]
      @state = state
      @call_id = call_id
    end

    # The value of a secret that the function lists, without the newline at its end.
    def secret(name)
      File.read(File.join(@secrets, File.basename(name))).delete_suffix("\n")
    rescue SystemCallError
      raise KeyError, "the function has no secret #{name.inspect}: list it under `secrets` in stack.yml"
    end
  end
end
