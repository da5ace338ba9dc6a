"""Names in author positions are found, organisations and other words are not."""

import pytest

from starsmith.signals import pii


def names(text):
    data = text.encode()
    return [data[f.start : f.end].decode() for f in pii.find(data) if f.kind == "NAME"]


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "Jean-Luc O'Neil",
        "John M. Smith",
        "J. R. R. Tolkien",
        "Max van der Berg",
        "José García Márquez",
        "Łukasz Żak",
        "Зоя Иванова",
        "Ludwig van Beethoven",
        "Ronald McDonald",
        "Bo Yi Chen-Li",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "# Copyright (c) 2015-2020 {}\n",
        "// (C) 2011, {}.\n",
        "Copyright © 1999 by {}, all rights reserved",
        "© 2020 {}",
        "Copyright 2004-present {} <a@b.example>",
        " * @author {}\n",
        " * @author: {}\n",
        "__author__ = '{}'",
        '"author": "{}",',
        '"author": {{"name": "{}", "email": 1}}',
        'authors = ["{} <x@y.example>"]',
        'authors = [{{name = "{}"}}]',
        "Author: {}\n",
        "Authors: {} and others",
        "Signed-off-by: {} <a@b.example>",
        "Co-Authored-By: {} <a@b.example>",
        "Written by {} in 1999",
        "maintainer: {}",
        "\\author{{{}}}",
        "To: {} <someone@company.com>",
        'author_name = "{}"',
    ],
)
def test_positions(name, place):
    assert names(place.format(name)) == [name]


def test_several_names():
    assert names("Copyright (c) 2020 Ada Lovelace, Alan M. Turing and Grace Hopper") == [
        "Ada Lovelace", "Alan M. Turing", "Grace Hopper",
    ]  # fmt: skip
    assert names('"authors": ["Ada Lovelace <a@b.example>", "Alan Turing"]') == ["Ada Lovelace", "Alan Turing"]
    assert names("@author Ada Lovelace & Alan Turing") == ["Ada Lovelace", "Alan Turing"]


@pytest.mark.parametrize(
    "text",
    [
        "Copyright (c) 2014 The Chromium Authors. All rights reserved.",
        "Copyright 2010 Google Inc.",
        "Copyright (c) 2019 Red Hat",
        "Copyright (c) 2001-2020 Python Software Foundation",
        "Copyright (C) 2012 Acme Widgets Inc.",
        "(c) Some Random Words",
        "Copyright (c) 2011 Sun Microsystems, Inc.",
        "Copyright 2020 Massachusetts Institute of Technology",
        "Copyright (c) 1999 Madonna",
        "Author: unknown",
        "@author admin",
        "Author Name: TBD",
        "authority: Ada Lovelace",
        "the author of Das Kapital Ist Gut",
        "Ada Lovelace wrote this",
        "class Author: Model Field",
        "Author: The Default Value",
        "author = FirstName.LastName",
        "Copyright (c) 2014 Ada Lovelace Software",
        "co-author Ada Lovelace Foundation",
        "written by Hand Over Here/There",
        "@authorize User Name",
        "Copyright Notice Applies Here",
    ],
)
def test_what_is_no_name(text):
    assert names(text) == []


def test_a_name_is_in_front_of_its_address_only_with_brackets():
    assert names("contact Ada Lovelace <ada@company.com>") == ["Ada Lovelace"]
    assert names("contact Ada Lovelace ada@company.com") == []
    assert names("Ada Lovelace <ada@example.com>") == []  # the address is an example, and so is who has it


def test_a_name_cut_by_the_window_is_left():
    lead = "author: " + '"' + "x" * 140
    assert names(lead + "Ada Lovelace") == []
    spaced = "written by" + " Q." * 60 + " Ada"
    assert names(spaced) == []
