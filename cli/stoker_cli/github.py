"""`stoker github`: the App by which the platform is connected to GitHub."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.surroundings import Surroundings
from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import Conflict, NotFound


@click.group("github", context_settings={"help_option_names": ["-h", "--help"]})
def github() -> None:
    """The GitHub App of this platform: pushes to the repositories that it is installed in are built and deployed.

    \b
    stoker github setup --url https://functions.example.org
    stoker github show
    """


@github.command("setup", cls=Command)
@click.option("--url", required=True, metavar="URL", help="Where GitHub reaches this platform: https://HOST[:PORT].")
@click.option(
    "--pages-host", default="", metavar="HOST", help="That of `stoker serve`: people sign in to the pages by the App."
)
@click.option("--organization", default="", metavar="NAME", help="Make the App there. [default: your account]")
@click.option("--name", default="", metavar="NAME", help="What the App is called. [default: Stoker at HOST]")
@click.option("--github-url", default="https://github.com", show_default=True, help="Your GitHub Enterprise Server.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page here. [default: any free one]")
@click.option("--no-browser", is_flag=True, help="Print the page's address and open nothing.")
@click.option("--replace", is_flag=True, help="In place of an App that is set up already.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="The platform's folder [STOKER_DATA_DIR].")
@click.pass_obj
def setup(
    surroundings: Surroundings,
    url: str,
    pages_host: str,
    organization: str,
    name: str,
    github_url: str,
    port: int,
    no_browser: bool,
    replace: bool,
    data_dir: Path | None,
) -> None:
    """Make a GitHub App for this platform, with one click in the browser, and store its secrets here, encrypted.

    Run it on the platform's machine. A running platform takes the App up by itself. Then choose on GitHub which
    repositories it is installed in: a push to one of them is built, tested and deployed.

    \b
    stoker github setup --url https://functions.example.org
    stoker github setup --url https://functions.example.org --organization team
    stoker github setup --url https://functions.example.org --pages-host pages.functions.example.org
    ssh -L 9000:127.0.0.1:9000 HOST stoker github setup --url ... --port 9000 --no-browser
    """
    from stoker_cli.github_setup import AppRequest, SetupPage
    from stoker_sdk.github_app import check_key, store_app, stored_app

    data = _data(surroundings, data_dir)
    check_key(data)
    if not replace and (app := stored_app(data)) is not None:
        raise Conflict(f"the App {app.slug} is set up already: --replace takes another one in its place")
    request = AppRequest(url, organization, name, github_url, pages_host.lower())
    with SetupPage(request, port) as page:
        click.echo(f"Open {page.url} and press the button on GitHub.")
        if not no_browser:
            webbrowser.open(page.url)
        app = page.wait()
    store_app(data, app)
    click.echo(f"The App {app.slug} is set up. Install it in your repositories: {app.html_url}/installations/new")


@github.command("show", cls=Command)
@click.option("--data-dir", type=click.Path(path_type=Path), help="The platform's folder [STOKER_DATA_DIR].")
@click.pass_obj
def show(surroundings: Surroundings, data_dir: Path | None) -> None:
    """Show which App is set up, without its secrets.

    \b
    stoker github show
    """
    from stoker_sdk.github_app import stored_app

    app = stored_app(_data(surroundings, data_dir))
    if app is None:
        raise NotFound("no GitHub App is set up here: run `stoker github setup`")
    click.echo(f"{app.slug} (App {app.id}): {app.html_url}")


def _data(surroundings: Surroundings, data_dir: Path | None) -> DataDir:
    return DataDir(data_dir.absolute()) if data_dir else surroundings.data_dir
