# frozen_string_literal: true

require "minitest/autorun"
require_relative "handler"

class HandlerTest < Minitest::Test
  Request = Struct.new(:method, :path, :text)

  def test_the_answer_names_method_path_and_body
    answer = Handler.new.call(Request.new("POST", "/hello", "world"), nil)
    assert_equal 200, answer[:statusCode]
    assert_equal "POST /hello: world", answer[:body]
  end
end
