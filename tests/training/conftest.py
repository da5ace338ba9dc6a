import artificial_language
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model_config():
    return artificial_language.MODEL


@pytest.fixture
def make_loader():
    return artificial_language.FakeLoader


@pytest.fixture
def settings():
    return artificial_language.training_settings
