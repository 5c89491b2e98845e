# frozen_string_literal: true

module Stoker
  # What the handler prints, as records `RS time SP call-id SP text LF` in the log file, which is descriptor 2.
  class Log
    MAX_LINE = 64 * 1024
    FILE_SIZE = 16 * 1024 * 1024
    RATE = 10_000_000
    BURST = 20_000_000

    def initialize(path)
      @path = path
      @out = IO.for_fd(2, "ab", autoclose: false)
      @out.sync = true
      @written = path.empty? ? 0 : @out.stat.size
      @budget = BURST
      @refilled = clock
      @dropped = 0
      @mutex = Mutex.new
    end

    # Make prints go to the log from now on.
    def install
      $stdout = $stderr = Printer.new(self)
    end

    def lines(call, lines)
      stamp = now
      put(lines.map { |line| record(stamp, call, line) }.join, lines.size)
    end

    def failure(call, what, error)
      frames = (error.backtrace || []).reject { |frame| frame.include?("/runtime/") || frame.include?("/webrick/") }
      lines(call, [what, "#{error.class}: #{error.message}".split("\n"), frames.map { |frame| "    #{frame}" }].flatten)
    end

    private

    def put(block, count)
      @mutex.synchronize do
        next @dropped += count unless allow?(block.bytesize)

        if @dropped.positive?
          block = record(now, "-", "[stoker: #{@dropped} lines dropped here: more than 10 MB a second]") + block
          @dropped = 0
        end
        write(block)
      end
    end

    def write(block)
      @out.write(block)
      @written += block.bytesize
      rotate if !@path.empty? && @written > FILE_SIZE
    rescue SystemCallError
      nil # a full disk must not fail a call
    end

    def rotate
      File.rename(@path, "#{@path}.1")
      File.open(@path, "ab", 0o600) do |fresh|
        STDOUT.reopen(fresh)
        STDERR.reopen(fresh)
      end
      @written = 0
    end

    def allow?(size)
      at = clock
      @budget = [BURST, @budget + (at - @refilled) * RATE].min
      @refilled = at
      return false if size > @budget

      @budget -= size
      true
    end

    def record(stamp, call, line)
      line = line.to_s.b
      over = line.bytesize - MAX_LINE
      line = line.byteslice(0, MAX_LINE) + " [stoker: #{over} bytes of this line dropped]" if over.positive?
      "\x1e#{stamp} #{call} ".b + line + "\n"
    end

    def now
      Time.now.utc.strftime("%Y-%m-%dT%H:%M:%S.%6NZ")
    end

    def clock
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end

  # Stands in for $stdout and $stderr. A line that is not ended yet waits in its thread.
  class Printer
    def initialize(log)
      @log = log
    end

    def write(*texts)
      thread = Thread.current
      *lines, rest = ("#{thread[:stoker_partial]}#{texts.join}").split("\n", -1)
      if rest && rest.bytesize > Log::MAX_LINE
        lines << rest
        rest = ""
      end
      thread[:stoker_partial] = rest
      @log.lines(thread[:stoker_call] || "-", lines) unless lines.empty?
      texts.sum { |text| text.to_s.bytesize }
    end

    # The call is over: an unfinished line is a line now.
    def end_call
      rest = Thread.current[:stoker_partial]
      @log.lines(Thread.current[:stoker_call] || "-", [rest]) if rest && !rest.empty?
      Thread.current[:stoker_partial] = ""
    end

    def <<(text)
      write(text)
      self
    end

    def print(*values)
      write(*values)
      nil
    end

    def puts(*values)
      values = [""] if values.empty?
      values.flatten.each { |value| write(value.to_s.end_with?("\n") ? value.to_s : "#{value}\n") }
      nil
    end

    def printf(format, *values)
      write(Kernel.format(format, *values))
      nil
    end

    def flush
      self
    end

    def sync
      true
    end

    def sync=(value); end

    def tty?
      false
    end
    alias isatty tty?

    def fileno
      2
    end
  end
end
