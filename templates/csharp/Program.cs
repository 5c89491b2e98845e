// The program of a C# function: Kestrel serves HTTP/1.1 itself. Under Stoker it gets a listening socket; without one, as
// in a container, it listens on `port`.
using Microsoft.Win32.SafeHandles;
using System.Globalization;
using System.Text;

var timeout = Settings.Duration("exec_timeout", 30);
var most = Settings.Number("max_inflight", 0);
var places = Settings.Number("STOKER_CONCURRENCY", 0) is var wanted and > 0 ? new SemaphoreSlim(wanted) : null;
var running = 0;
var draining = false;

var builder = WebApplication.CreateSlimBuilder(args);
builder.Logging.ClearProviders();
builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromSeconds(timeout > 0 ? timeout : 86400));
builder.WebHost.ConfigureKestrel(options =>
{
    options.Limits.MaxRequestBodySize = null;
    options.Limits.KeepAliveTimeout = TimeSpan.FromHours(1);
    var listener = Settings.Number("STOKER_LISTENER", -1);
    if (listener >= 0) options.ListenHandle((ulong)listener);
    else options.ListenAnyIP(Settings.Number("port", 8080));
});

var app = builder.Build();
var handler = new Function.Handler();

app.MapGet("/_/health", () => draining ? Results.Text("draining\n", statusCode: 503) : Results.Text("OK"));
app.MapGet("/_/ready", () =>
    draining ? Results.Text("draining\n", statusCode: 503)
    : most > 0 && running >= most ? Results.Text("at max_inflight\n", statusCode: 429)
    : Results.Text("OK"));
app.MapGet("/_/metrics", () => Results.Text($"# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight {running}\n"));
app.Map("/{**path}", Call);

app.Lifetime.ApplicationStarted.Register(() =>
{
    if (!Settings.Local) File.WriteAllText("/tmp/.lock", "");
    Settings.Report("{\"ready\": {}}");
});
app.Lifetime.ApplicationStopping.Register(() => { draining = true; if (!Settings.Local) File.Delete("/tmp/.lock"); });
app.Run();

async Task Call(HttpContext context)
{
    if (places is not null) await places.WaitAsync(context.RequestAborted);
    try
    {
        if (Interlocked.Increment(ref running) > most && most > 0)
        {
            context.Response.Headers["X-OpenFaaS-Internal"] = "faas-middleware";
            await Answer(context, 429, "function; max-inflight", $"Concurrent request limit exceeded. Max concurrent requests: {most}\n", "text/plain");
            return;
        }
        await Run(context);
    }
    finally
    {
        Interlocked.Decrement(ref running);
        places?.Release();
    }
}

async Task Run(HttpContext context)
{
    var id = context.Request.Headers["X-Call-Id"].FirstOrDefault() ?? "-";
    using var ended = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
    if (timeout > 0) ended.CancelAfter(TimeSpan.FromSeconds(timeout));
    context.RequestAborted = ended.Token;
    try
    {
        var answer = await handler.Handle(context).WaitAsync(ended.Token);
        await answer.ExecuteAsync(context);
    }
    catch (OperationCanceledException) when (ended.IsCancellationRequested && !context.Response.HasStarted)
    {
        await Answer(context, 504, "function; timeout", $"the call took longer than the function's timeout ({timeout} s)\n");
    }
    catch (Exception error) when (!context.Response.HasStarted)
    {
        foreach (var line in $"the handler failed\n{error}".Split('\n'))
            Console.Error.Write($"\x1e{DateTime.UtcNow:yyyy-MM-ddTHH:mm:ss.ffffffZ} {id} {line}\n");
        await Answer(context, 500, "function; exception", $"the handler threw {error.GetType().Name}; the error is in the log under call id {id}\n");
    }
}

static Task Answer(HttpContext context, int status, string reason, string text, string type = "text/plain; charset=utf-8")
{
    context.Response.StatusCode = status;
    context.Response.ContentType = type;
    context.Response.Headers["X-Stoker-Error"] = reason;
    return context.Response.Body.WriteAsync(Encoding.UTF8.GetBytes(text)).AsTask();
}

static class Settings
{
    public static bool Local => Environment.GetEnvironmentVariable("STOKER_LISTENER") is not null;

    public static int Number(string name, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : otherwise;

    /// <summary>Seconds: a bare number, or one with the unit s or m.</summary>
    public static double Duration(string name, double otherwise)
    {
        var text = Environment.GetEnvironmentVariable(name) ?? "";
        var factor = text.EndsWith('m') ? 60 : 1;
        return double.TryParse(text.TrimEnd('s', 'm'), CultureInfo.InvariantCulture, out var value) ? value * factor : otherwise;
    }

    /// <summary>One line to the status descriptor, when there is one.</summary>
    public static void Report(string line)
    {
        var descriptor = Number("STOKER_STATUS", -1);
        if (descriptor < 0) return;
        using var status = new FileStream(new SafeFileHandle(descriptor, false), FileAccess.Write, 1);
        status.Write(Encoding.UTF8.GetBytes(line + "\n"));
        status.Flush();
    }
}
