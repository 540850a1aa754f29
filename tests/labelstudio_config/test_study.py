from __future__ import annotations

from typing import Any

import pytest

from cytoloop.domain.errors import InputError, StateError
from labelstudio_config.connection import LabelStudioNotFound
from labelstudio_config.study import Answer, answers, users_of

TITLE = "Boxes b1 – expert 1"


class Office:
    """The calls that collecting makes."""

    def __init__(self, annotations: list[dict[str, Any]]) -> None:
        self.annotations = annotations
        self.title = TITLE

    def get_project(self, project_id: int) -> dict[str, Any]:
        if project_id != 3:
            raise LabelStudioNotFound("404")
        return {"title": self.title}

    def iter_tasks(self, project_id: int) -> list[dict[str, Any]]:
        return [{"id": 7, "data": {"token": "t"}, "annotations": self.annotations}]

    def list_users(self) -> list[dict[str, Any]]:
        return [{"id": 1, "email": "ada@lab.org"}, {"id": 2, "email": "bob@lab.org"}]


def annotation(minute: int, user: Any = 1, **changes: Any) -> dict[str, Any]:
    return {
        "result": [minute],
        "updated_at": f"2024-05-17T12:{minute:02d}:00Z",
        "completed_by": user,
        "was_cancelled": False,
        "lead_time": 10.0 * minute,
        **changes,
    }


def standing(annotations: list[dict[str, Any]], user_id: int | None = None) -> Answer:
    [answer] = answers(Office(annotations), 3, TITLE, user_id)  # type: ignore[arg-type]
    return answer


def test_the_last_answer_stands_whatever_the_order() -> None:
    for given in ([annotation(1), annotation(5)], [annotation(5), annotation(1)]):
        answer = standing(given)
        assert (answer.result, answer.lead_time_s, answer.task_id) == ((5,), 50.0, 7)


def test_a_named_user_s_answer_wins_over_a_later_one_of_somebody_else() -> None:
    given = [annotation(1, user=1), annotation(5, user={"id": 2})]
    assert standing(given, user_id=1).result == (1,)
    assert standing(given, user_id=2).result == (5,)
    other = standing(given, user_id=9)
    assert (other.result, other.by_other) == (None, True)


def test_a_skipped_task_is_open() -> None:
    answer = standing([annotation(5, was_cancelled=True)])
    assert (answer.result, answer.was_skipped, answer.by_other) == (None, True, False)
    assert standing([annotation(1), annotation(5, was_cancelled=True)]).result == (1,)
    assert standing([]) == Answer(task_id=7, data={"token": "t"}, result=None)


def test_a_project_that_is_gone_or_another_is_refused() -> None:
    office = Office([])
    with pytest.raises(StateError, match="project 4 is gone in Label Studio; expected 'Boxes b1"):
        list(answers(office, 4, TITLE, None))  # type: ignore[arg-type]
    office.title = "mine"
    with pytest.raises(StateError, match="project 3 is called 'mine'"):
        list(answers(office, 3, TITLE, None))  # type: ignore[arg-type]


def test_e_mails_are_users_and_other_names_are_free() -> None:
    office: Any = Office([])
    assert users_of(office, ["ada@lab.org", "expert-2"]) == {"ada@lab.org": 1}
    with pytest.raises(
        InputError, match=r"experts eve@lab.org: not in Label Studio.*ada@lab.org, bob@lab.org"
    ):
        users_of(office, ["eve@lab.org", "ada@lab.org"])
