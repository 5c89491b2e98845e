import pytest

from stoker_watchdog.options import Options, OptionsError, duration, read_options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        (".5s", 0.5),
        ("10us", 1e-5),
        ("1h2m3s4ms", 3723.004),
        ("+2s", 2.0),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(text: str, seconds: float) -> None:
    assert duration(text, 7.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "-5s", "1.5", "abc", "5 s", "1d", "s", "1e3s", "9" * 50, "9" * 30 + "h", "1s\n", "٣s", "٣", "1s" * 200],
)
def test_what_is_no_duration_is_the_default(text: str) -> None:
    assert duration(text, 7.0) == 7.0


def test_without_variables_everything_has_the_default_of_the_contract() -> None:
    options = read_options({})
    assert options == Options()
    assert (options.mode, options.port, options.exec_timeout) == ("streaming", 8080, 30.0)


def test_the_classic_watchdog_has_other_defaults() -> None:
    options = read_options({"mode": "classic"})
    assert (options.exec_timeout, options.content_type, options.cgi_headers) == (0.0, "", True)
    assert options.combine_output
    assert not read_options({"mode": "classic", "cgi_headers": "false", "combine_output": "false"}).cgi_headers


def test_cgi_headers_mean_something_to_the_classic_watchdog_only() -> None:
    assert read_options({"mode": "streaming", "cgi_headers": "false"}).cgi_headers
    assert not read_options({"mode": "streaming", "marshal_request": "true"}).marshal_request


def test_the_second_name_of_a_variable_wins() -> None:
    options = read_options(
        {
            "fprocess": "a",
            "function_process": "b  c",
            "upstream_url": "http://127.0.0.1:1",
            "http_upstream_url": "http://127.0.0.1:2",
        }
    )
    assert options.command == ("b", "c")
    assert options.upstream_url == "http://127.0.0.1:2"


def test_the_drain_takes_as_long_as_writing_may_unless_told() -> None:
    assert read_options({"write_timeout": "7"}).healthcheck_interval == 7.0
    assert read_options({"write_timeout": "7", "healthcheck_interval": "1s"}).healthcheck_interval == 1.0


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("TRUE", False), ("yes", False), ("", False)])
def test_most_booleans_are_true_for_two_words_only(text: str, value: bool) -> None:
    assert read_options({"suppress_lock": text}).suppress_lock is value


@pytest.mark.parametrize(
    ("text", "value"), [("false", False), ("F", False), ("0", False), ("nonsense", True), ("", True)]
)
def test_prefix_logs_is_read_as_go_reads_it(text: str, value: bool) -> None:
    assert read_options({"prefix_logs": text}).prefix_logs is value


def test_a_line_of_the_log_may_have_any_length_with_minus_one() -> None:
    assert read_options({"log_buffer_size": "-1"}).log_buffer_size == -1
    assert read_options({"log_buffer_size": "-7"}).log_buffer_size == 65536


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"mode": "afterburn", "fprocess": "cat"}, "mode is 'afterburn'"),
        ({"mode": "inproc"}, "use one of"),
        ({}, "set fprocess"),
        ({"mode": "http", "fprocess": "x"}, "upstream_url"),
        ({"fprocess": "cat", "write_timeout": "0"}, "write_timeout"),
        ({"fprocess": "cat", "ready_path": "http://evil"}, "ready_path"),
        ({"fprocess": "cat", "ready_path": "/a b\r\nX: y"}, "ready_path"),
    ],
)
def test_what_no_watchdog_can_start_with_is_named(environment: dict[str, str], what: str) -> None:
    with pytest.raises(OptionsError, match=what):
        read_options(environment).check()
