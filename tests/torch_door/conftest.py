"""What tests of the torch door may ask for."""

import pytest


@pytest.fixture
def one_thread():
    """Tiny tensors: a second thread costs more than all the rest."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
