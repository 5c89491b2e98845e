# frozen_string_literal: true

# The program of a Ruby function: it serves HTTP/1.1 itself, so that no other process stands in a call's way.
require_relative "runtime/serve"

Stoker.serve(__dir__)
