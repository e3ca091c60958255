from reflection import CALLED, METHODS, NOT_COVERED_YET


def test_every_public_method_is_called_or_listed():
    assert len(METHODS) > 150, "reflection found too little: did the package change?"
    missing = sorted(METHODS - CALLED - set(NOT_COVERED_YET))
    assert not missing, f"no test calls {missing}"


def test_the_list_of_what_is_not_covered_is_true():
    assert not sorted(set(NOT_COVERED_YET) - METHODS), "listed but not in the package"
    assert not sorted(set(NOT_COVERED_YET) & CALLED), "listed but called by a test"
