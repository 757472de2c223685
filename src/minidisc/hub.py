"""`minidisc push`: a saved model to the Hugging Face Hub, never unless asked."""

from __future__ import annotations

from pathlib import Path

from minidisc.errors import UserError
from minidisc.values import path_from


def push(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Upload a folder that minidisc has saved, in one commit.

    Args:
        folder: a student, an assistant, an extracted size, a fine-tuned teacher or an exported folder.
        repo_id: ``NAME/MODEL`` on the Hub; made if it is not there.
        private: whether a repository that is made is private; of one that is there nothing changes.

    Returns:
        The model's address.

    Raises:
        UserError: the folder holds no model with a card, or the Hub does not take it.
    """
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
    from huggingface_hub.utils import validate_repo_id
    from yaml import YAMLError

    folder = path_from("folder", folder)
    for name in ("config.json", "README.md"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}; give the folder of a model that minidisc has saved.")
    try:
        validate_repo_id(repo_id)
        ModelCard.load(folder / "README.md")
    except HFValidationError:
        raise UserError(f"{repo_id!r} is no name of a model on the Hub; give one such as me/my-student.") from None
    except (ValueError, YAMLError) as error:
        raise UserError(f"the metadata at the head of {folder / 'README.md'} cannot be read: {error}") from None
    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Upload by minidisc")
    except HfHubHTTPError as error:
        raise UserError(
            f"the Hub does not take {repo_id} ({str(error).strip()}); log in with 'hf auth login' to an account that "
            "may write there."
        ) from None
    except (OSError, HTTPError) as error:
        raise UserError(
            f"the Hub cannot be reached ({error}); look at the connection and at HF_HUB_OFFLINE."
        ) from None
    return str(address)
