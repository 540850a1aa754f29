"""``python victim.py HOME SOCKET``: a trainer that looks until it is killed; its trainings are processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

from remote import RemoteLabelStudio

import trainer.schedule
from cytoloop.config import Settings
from cytoloop.domain.trainer_policy import ContestPolicy, Limits, TrainerPolicy, Triggers

POLICY = TrainerPolicy(
    triggers=Triggers(corrections=3),
    limits=Limits(threads=1),
    contest=ContestPolicy(min_groups=4, min_class_groups=4),
    keep_versions=2,
)


def trainer_of(home: Path, socket: Path) -> trainer.schedule.Trainer:
    """The real trainer, but for what it believes to be Label Studio."""
    trainer.schedule.LabelStudioClient = lambda url, token: RemoteLabelStudio(socket)  # type: ignore[assignment,misc]
    settings = Settings(
        home=home,
        label_studio_url="http://127.0.0.1:9",
        label_studio_token="studio-token-7f3a",
        backend_url="http://127.0.0.1:9",
        backend_password="backend-password-91c2",
        webhook_secret="webhook-secret-5d0e",
        api_tokens=home / "api-tokens",
        device="cpu",
    )
    return trainer.schedule.Trainer(settings, POLICY, preset="smoke")


if __name__ == "__main__":
    made = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]))
    print("ready", flush=True)
    while True:
        made.look()
