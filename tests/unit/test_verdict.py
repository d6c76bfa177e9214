from zctrace.analysis.verdicts import Word, judge_copies, judge_switches

MIB = 1 << 20


def test_equal_bytes_hold():
    verdict = judge_copies(2, 2 * MIB, MIB, "")
    assert verdict.word is Word.HOLDS


def test_one_byte_off_is_refuted_and_named():
    verdict = judge_copies(0, 1, MIB, "")
    assert verdict.word is Word.REFUTED
    assert verdict.sentence.endswith("+1 B")
    assert judge_copies(2, 2 * MIB - 1, MIB, "").sentence.endswith("-1 B")


def test_no_figure_is_no_zero():
    verdict = judge_copies(0, None, MIB, "blind: somewhere")
    assert (verdict.word, verdict.sentence) == (Word.NOT_MEASURED, "blind: somewhere")


def test_no_claim_is_not_refuted():
    copies = judge_copies(None, 7, MIB, "")
    assert (copies.word, copies.sentence) == (Word.NO_CLAIM, "7 B copied")
    switches = judge_switches(None, 4, {"poll": 2}, "")
    assert (switches.word, switches.sentence) == (
        Word.NO_CLAIM,
        "4 switches: 2 × poll, two each",
    )


def test_what_was_not_measured_is_so_without_a_claim_too():
    assert judge_copies(None, None, MIB, "blind").word is Word.NOT_MEASURED
    assert judge_switches(None, None, {}, "lost 1").word is Word.NOT_MEASURED


def test_switches_name_the_calls():
    verdict = judge_switches(2, 64, {"splice": 32}, "")
    assert verdict.word is Word.REFUTED
    assert verdict.sentence == (
        "2 switches claimed, 64 measured: 32 × splice, two switches each"
    )


def test_switches_not_trusted():
    assert judge_switches(2, None, {}, "lost 1").word is Word.NOT_MEASURED
