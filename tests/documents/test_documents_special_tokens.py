"""The order and the ids are those of section 4.5."""

from starsmith.documents import special_tokens

TABLE = """
<|endoftext|> <fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <repo_name> <file_sep> <issue_start>
<issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script>
<empty_output> <code_to_intermediate> <intermediate_to_code> <pr> <pr_status> <pr_is_merged> <pr_base> <pr_file>
<pr_base_code> <pr_diff> <pr_diff_hunk> <pr_comment> <pr_event_id> <pr_review> <pr_review_state>
<pr_review_comment> <pr_in_reply_to_review_id> <pr_in_reply_to_comment_id> <pr_diff_hunk_comment_line>
<NAME> <EMAIL> <KEY> <PASSWORD>
"""
PUBLISHED = TABLE.split()


def test_order_and_ids_are_the_published_ones() -> None:
    assert list(special_tokens.SPECIAL_TOKENS) == PUBLISHED
    assert len(set(PUBLISHED)) == 38
    assert [special_tokens.IDS[token] for token in PUBLISHED] == list(range(38))
    assert special_tokens.FIM_PREFIX_ID == 1
    assert special_tokens.FIM_MIDDLE_ID == 2
    assert special_tokens.FIM_SUFFIX_ID == 3
    assert special_tokens.FILE_SEP_ID == 6
