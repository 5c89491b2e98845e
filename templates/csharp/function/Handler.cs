namespace Function;

public class Handler
{
    /// <summary>Answers a call.</summary>
    public async Task<IResult> Handle(HttpContext context)
    {
        using var reader = new StreamReader(context.Request.Body);
        var body = await reader.ReadToEndAsync();
        return Results.Text($"{context.Request.Method} {context.Request.Path}: {body}");
    }
}
