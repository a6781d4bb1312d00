"""Small jobs for the engine, and what is said, without Qt."""

from __future__ import annotations

import numpy as np

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestions
from napari_semiseg.blocks import Box
from napari_semiseg.events import Failed, Finished, Progressed, Ready, Run, Started, Suggested, Warned


def session_with_engine(path=None):
    """A session whose engine is ready, on a project with one image where a path is given; and what is sent."""
    session = Session()
    sent = []
    if path is not None:
        session.project.create(path)
        session.project.folder.add_array(np.zeros((300, 300, 3), np.uint8), "field")
        session.show_image(0)
    session.engine.commanded.connect(sent.append)
    session.engine.apply([(Ready(1, {}), "")])
    return session, sent


def asking_for_places(path, *others, everywhere=True):
    """Ask for places in a project of one image, or of others beside it."""
    session, sent = session_with_engine(path / "case")
    for name in others:
        session.project.folder.add_array(np.zeros((300, 300, 3), np.uint8), name)
    suggestions = Suggestions(session)
    suggestions.everywhere = everywhere
    suggestions.ask(100)
    return session, sent, suggestions


def test_a_small_job_waits_until_the_engine_is_free_and_only_the_newest_of_a_kind_is_kept():
    session, sent = session_with_engine()
    training = session.engine.run("train", {})
    heard = []
    session.ask("propose", {"image": "a"}, heard.append)
    session.ask("propose", {"image": "b"}, heard.append)
    assert [command.verb for command in sent] == ["train"]

    session.engine.apply([(Finished("train"), training)])
    session.run_errands()
    assert [(command.verb, command.args) for command in sent[1:]] == [("propose", {"image": "b"})]
    session.engine.apply([(Finished("propose"), sent[-1].job)])
    assert heard == [Finished("propose")]
    session.end()


def test_a_dropped_job_is_not_heard():
    session, sent = session_with_engine()
    heard = []
    session.ask("suggest", {}, heard.append)
    session.drop_errands("suggest")
    session.engine.apply([(Suggested([]), sent[-1].job), (Finished("suggest"), sent[-1].job)])

    assert heard == []
    session.end()


def test_who_waits_for_a_small_job_hears_that_the_engine_died_of_it():
    session, sent = session_with_engine()
    heard = []
    session.ask("region", {}, heard.append)
    session.engine.apply([(Started("region"), sent[-1].job), ChildEnded("crash", -9, "the log", "its end")])

    assert heard[1:] == [Failed(session.engine.message, wrong_input=False, detail="its end")]
    assert "during the measurement of a region (signal SIGKILL)" in heard[1].message
    session.end()


def test_a_failure_is_told_once_it_is_listened_to(tmp_path):
    session, sent, suggestions = asking_for_places(tmp_path)
    assert isinstance(sent[-1], Run)
    session.engine.apply([(Failed("The image cannot be read: look.", wrong_input=True, detail="why"), sent[-1].job)])

    assert not suggestions.waiting
    assert session.notice.sentence == "The image cannot be read: look."
    assert session.notice.details == "why"
    session.end()


def test_suggestions_are_offered_one_by_one_and_taking_one_makes_the_tile(tmp_path):
    session, sent, suggestions = asking_for_places(tmp_path)
    tiles = [{"image": 0, "box": [0, x, 100, x + 100], "reason": f"because {x}"} for x in (0, 100, 200)]
    session.engine.apply([(Suggested(tiles), sent[-1].job), (Finished("suggest"), sent[-1].job)])

    assert suggestions.words == "Suggested: because 0"
    suggestions.skip()
    assert (suggestions.words, suggestions.left) == ("Suggested: because 100", 1)
    suggestions.take()
    assert session.project.tiles[0].box == Box(0, 100, 100, 200)
    assert suggestions.current is None
    session.end()


def test_an_empty_list_of_suggestions_is_said(tmp_path):
    session, sent, _ = asking_for_places(tmp_path)
    session.engine.apply([(Suggested([]), sent[-1].job)])

    assert "no room" in session.notice.sentence
    session.end()


def test_with_several_images_all_are_looked_at_unless_the_one_in_view_is_asked_for(tmp_path):
    session, sent, suggestions = asking_for_places(tmp_path, "other")
    suggestions.cancel()
    session.engine.apply([(Finished("suggest"), sent[-1].job)])
    suggestions.everywhere = False
    suggestions.ask(100)

    assert [command.args["image"] for command in sent] == [None, 0]
    session.end()


def test_a_place_in_another_image_names_it_and_stays_on_offer_while_one_looks_there(tmp_path):
    session, sent, suggestions = asking_for_places(tmp_path, "other")
    places = [{"image": 1, "box": [0, 0, 100, 100], "reason": "it is new"}]
    left_out = "“field” is left out: it is gone."
    for event in (Progressed("looking at images", 1, 2), Warned(left_out)):
        session.engine.apply([(event, sent[-1].job)])
    assert (suggestions.waiting, suggestions.looking) == (True, "Looking at images: 1 of 2")
    session.engine.apply([(Suggested(places), sent[-1].job)])

    assert session.notice.sentence == left_out
    assert suggestions.words == "Suggested in “other”: it is new"
    session.show_image(1)
    assert suggestions.take().image == 1
    session.end()


def test_places_of_the_image_in_view_alone_are_gone_with_it(tmp_path):
    session, sent, suggestions = asking_for_places(tmp_path, everywhere=False)
    session.engine.apply([(Suggested([{"image": 0, "box": [0, 0, 9, 9], "reason": "new"}]), sent[-1].job)])
    session.show_image(None)

    assert suggestions.current is None
    session.end()
