"""Pushing, against a stand-in with the signatures of the Hub's own client, and against the client itself offline."""

from unittest.mock import MagicMock, create_autospec

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from minidisc.cli.main import main
from minidisc.errors import UserError
from minidisc.hub import push


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\ntags:\n- minidisc\n---\n# A student\n")
    return tmp_path


@pytest.fixture
def api(monkeypatch):
    api = create_autospec(huggingface_hub.HfApi, instance=True)
    api.create_repo.return_value = huggingface_hub.RepoUrl("https://huggingface.co/me/student")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    return api


@pytest.mark.parametrize("private", [False, True])
def test_the_folder_goes_to_its_repository_in_one_commit(folder, api, capsys, private):
    main(["push", str(folder), "me/student", *["--private"] * private])
    assert capsys.readouterr().out == "pushed    https://huggingface.co/me/student\n"
    api.create_repo.assert_called_once_with("me/student", private=private, exist_ok=True)
    (call,) = api.upload_folder.call_args_list
    assert (call.kwargs["repo_id"], call.kwargs["folder_path"]) == ("me/student", folder)
    assert [name for name, _, _ in api.method_calls] == ["create_repo", "upload_folder"]


@pytest.mark.parametrize("missing", ["config.json", "README.md"])
def test_what_is_no_saved_model_is_refused_before_anything_is_made(folder, api, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"holds no {missing}"):
        push(folder, "me/student")
    assert not api.method_calls


@pytest.mark.parametrize("name", ["me/student/best", "my student", "./student"])
def test_a_name_that_the_hub_cannot_have(folder, api, name):
    with pytest.raises(UserError, match="is no name of a model"):
        push(folder, name)
    assert not api.method_calls


@pytest.mark.parametrize("head", ["- a list", "license: foo: bar"])
def test_a_card_that_the_hub_would_not_take(folder, api, head):
    (folder / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(UserError, match=r"README\.md"):
        push(folder, "me/student")
    assert not api.method_calls


def test_the_hub_says_no(folder, api):
    api.create_repo.side_effect = HfHubHTTPError("401 Unauthorized", response=MagicMock())
    with pytest.raises(UserError, match=r"401 Unauthorized.*hf auth login"):
        push(folder, "me/student")


def test_offline_nothing_is_sent(folder, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stopped:
        main(["push", str(folder), "me/student"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("minidisc: the Hub cannot be reached")
    assert error.count("\n") == 1
