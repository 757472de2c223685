"""The pages of the documentation against the code that they speak of."""

import re
import sys
from dataclasses import fields

import pytest
import typer

from minidisc.cli.main import app
from minidisc.config import CompressSettings, ExportSettings, FinetuneSettings
from tests.documentation import ROOT, blocks, pages

sys.path.insert(0, str(ROOT / "docs"))

import hooks
import messages
import pictures

COMMAND = typer.main.get_command(app)
COMMANDS = COMMAND.commands


def test_every_page_is_in_the_navigation():
    assert {page.name for page in pages()[:-1]} == {page.name for page in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_have_the_options_that_the_page_gives_them(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page.name, "exec")
            continue
        for name, *words in block.commands():
            if name == "minidisc" and words[0] in COMMANDS:
                # Raises on an unknown option, a missing argument, a value of the wrong type.
                COMMANDS[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", pages()[:-1], ids=lambda page: page.name)
def test_options_in_the_text_exist(page):
    commands = (COMMAND, *COMMANDS.values())
    known = {flag for command in commands for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    others = {"--write", "--help"}  # of docs/family_table.py and of typer
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {
        flag for code in re.findall(r"`([^`\n]+)`", text) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
    }
    assert named <= known | others


def test_messages_in_the_page_on_trouble_are_those_of_the_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    named = re.findall(r"^- `([^`]+)`", text, flags=re.MULTILINE)
    known = {message for found in messages.templates().values() for message in found}
    assert named
    assert not [message for message in named if message not in known]
    # Every other one is added when the site is built.
    rest = set(re.findall(r"^- `(.+)`$", hooks.other_messages(text), flags=re.MULTILINE))
    assert rest | set(named) == known
    assert not rest & set(named)


def test_templates_of_messages(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text(
        'raise UserError(f"{name} is {value!r}; " "give another.")\n'
        'require(value > 0, "give more.")\nraise UserError(text)\nprint("not a message")\n'
        'raise UserError("give more.")\n'
    )
    monkeypatch.setattr(messages, "SOURCE", tmp_path)
    assert messages.templates() == {"module.py": ["… is …; give another.", "give more."]}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_has_every_option_of_the_help(name):
    help_text = COMMANDS[name].get_help(COMMANDS[name].make_context(name, ["--help"], resilient_parsing=True))
    section = hooks.commands().partition(f"## minidisc {name}\n")[2].partition("\n## ")[0]
    flags = set(re.findall(r"^  (--[\w-]+)", help_text, flags=re.MULTILINE))
    assert flags
    assert flags <= set(re.findall(r"`(--[\w-]+)`", section)) | {"--help"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [("compress", CompressSettings), ("finetune", FinetuneSettings), ("export", ExportSettings)],
)
def test_the_help_gives_the_default_of_every_switch(name, settings):
    defaults = {field.name: field.default for field in fields(settings)}
    switches = {p.name: p.help for p in COMMANDS[name].params if p.secondary_opts}
    assert switches
    for switch, text in switches.items():
        assert text.endswith({True: " [yes]", False: " [no]"}[defaults[switch]]), switch


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_are_those_of_the_script(name):
    assert (pictures.IMAGES / f"{name}.svg").read_text(encoding="utf-8") == pictures.PICTURES[name](), (
        "run 'python docs/pictures.py'"
    )
