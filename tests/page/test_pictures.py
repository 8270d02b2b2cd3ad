from msgspec.structs import replace
from pictures import diagnosis, slack_page
from stories import make_story

from agent.notifiers.slack import message


def test_the_picture_of_slack_is_what_slack_is_sent() -> None:
    _, notice, _ = make_story().notices[0]
    sent = message(replace(notice, data=make_story().incident))
    page = slack_page(sent)
    assert sent["blocks"][0]["text"]["text"].partition(" ")[2] in page
    assert "<pre>{" not in page, "a block that is not drawn"


def test_the_pictures_show_a_main_holder() -> None:
    judged = diagnosis()
    assert ("orphans", "certain") == (judged.cause, judged.confidence)
    assert "nginx.service holds 80 % of the orphaned sockets." in judged.summary
    assert "Fix nginx.service: it holds 13,120 of 16,391 orphans on port 443." == judged.advice[0].action
