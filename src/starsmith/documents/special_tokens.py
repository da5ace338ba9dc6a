"""The 38 special tokens of StarCoder2, in the order of their ids (section 4.5).

Two kinds live under one numbering. The first 34 are *structure*: only a renderer writes them, and the same
characters inside a file are ordinary text, so that no file can end a document or open a FIM region. The last
four are *placeholders*: redaction writes them into the text itself, they carry no structure, and the tokenizer
therefore recognises them in text.
"""

END_OF_TEXT = "<|endoftext|>"
FIM_PREFIX = "<fim_prefix>"
FIM_MIDDLE = "<fim_middle>"
FIM_SUFFIX = "<fim_suffix>"
FIM_PAD = "<fim_pad>"
REPO_NAME = "<repo_name>"
FILE_SEP = "<file_sep>"

STRUCTURE_TOKENS: tuple[str, ...] = (
    END_OF_TEXT,
    FIM_PREFIX,
    FIM_MIDDLE,
    FIM_SUFFIX,
    FIM_PAD,
    REPO_NAME,
    FILE_SEP,
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
    "<code_to_intermediate>",
    "<intermediate_to_code>",
    "<pr>",
    "<pr_status>",
    "<pr_is_merged>",
    "<pr_base>",
    "<pr_file>",
    "<pr_base_code>",
    "<pr_diff>",
    "<pr_diff_hunk>",
    "<pr_comment>",
    "<pr_event_id>",
    "<pr_review>",
    "<pr_review_state>",
    "<pr_review_comment>",
    "<pr_in_reply_to_review_id>",
    "<pr_in_reply_to_comment_id>",
    "<pr_diff_hunk_comment_line>",
)
PLACEHOLDER_TOKENS: tuple[str, ...] = ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>")

SPECIAL_TOKENS: tuple[str, ...] = STRUCTURE_TOKENS + PLACEHOLDER_TOKENS
"""All special tokens; the index is the id."""

IDS: dict[str, int] = {token: number for number, token in enumerate(SPECIAL_TOKENS)}

END_OF_TEXT_ID = IDS[END_OF_TEXT]
FIM_PREFIX_ID = IDS[FIM_PREFIX]
FIM_MIDDLE_ID = IDS[FIM_MIDDLE]
FIM_SUFFIX_ID = IDS[FIM_SUFFIX]
FIM_PAD_ID = IDS[FIM_PAD]
REPO_NAME_ID = IDS[REPO_NAME]
FILE_SEP_ID = IDS[FILE_SEP]
