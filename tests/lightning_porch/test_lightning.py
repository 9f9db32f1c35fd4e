"""The Lightning callback, with real trainers of both packages."""

import csv

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning.pytorch")
pytorch_lightning = pytest.importorskip("pytorch_lightning")

from normkit import ArgumentError, StateError, load
from normkit.lightning import RecordNorms

# Lightning warns of few workers, of missing loggers, and of its own use of torch.
pytestmark = pytest.mark.filterwarnings("ignore")

PACKAGES = {"lightning.pytorch": lightning, "pytorch_lightning": pytorch_lightning}


def net_of(package=lightning, **parts):
    """A LightningModule of two layers on random digits; `parts` replace methods."""

    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = torch.nn.Linear(6, 5)
            self.head = torch.nn.Linear(5, 2)

        def training_step(self, batch, batch_idx):
            x, y = batch
            return torch.nn.functional.cross_entropy(self.head(torch.relu(self.body(x))), y)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    for name, part in parts.items():
        setattr(Net, name, part)
    return Net()


def batches():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 6, generator=generator), torch.randint(0, 2, (32,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)


def trainer_of(folder, *callbacks, package=lightning, **settings):
    plain = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
    }
    return package.Trainer(callbacks=list(callbacks), **{**plain, **settings})


class Truth(lightning.Callback):
    """The l2 of the first weight after each batch, by torch."""

    def __init__(self):
        self.lengths = []

    def on_train_start(self, trainer, pl_module):
        self.lengths.append(float(pl_module.body.weight.detach().double().norm()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.on_train_start(trainer, pl_module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_step_of_both_packages(tmp_path, package):
    truth, module = Truth(), net_of(PACKAGES[package])
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer_of(tmp_path, cb, truth, package=PACKAGES[package], num_sanity_val_steps=2).fit(module, batches(), batches())
    recording = load(tmp_path / "a.norms")
    assert isinstance(cb, PACKAGES[package].Callback)
    assert recording.steps.tolist() == list(range(9))
    np.testing.assert_allclose(recording.series("body.weight", "l2"), truth.lengths, rtol=1e-9)
    assert np.isfinite(recording.series("body.weight", "l2", quantity="grad")[1:]).all()
    assert recording.meta["end"] == "finished"


SETTINGS = {
    "accumulated": ({"accumulate_grad_batches": 2}, 4),
    "clipped": ({"gradient_clip_val": 0.01}, 8),
    "bfloat16": ({"precision": "bf16-mixed"}, 8),
    "half parameters": ({"precision": "bf16-true"}, 8),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_steps_and_gradients_as_the_optimizer_used_them(tmp_path, setting):
    settings, steps = SETTINGS[setting]
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer_of(tmp_path, cb, **settings).fit(net_of(), batches())
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == list(range(steps + 1))
    if setting == "clipped":
        squares = sum(recording.series(name, "l2", quantity="grad")[1:] ** 2 for name in recording.tensors)
        np.testing.assert_allclose(np.sqrt(squares), 0.01, rtol=1e-4)


def by_hand(self, batch, batch_idx):
    for optimizer in self.optimizers():
        optimizer.zero_grad()
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.head(torch.relu(self.body(x))), y)
        self.manual_backward(loss)
        optimizer.step()


def test_two_optimizers_by_hand_make_one_record_a_round(tmp_path):
    module = net_of(
        training_step=by_hand,
        configure_optimizers=lambda self: [
            torch.optim.SGD(self.body.parameters(), lr=0.1),
            torch.optim.SGD(self.head.parameters(), lr=0.1),
        ],
    )
    module.automatic_optimization = False
    trainer_of(tmp_path, RecordNorms(tmp_path / "a.norms", every=1, quiet=True)).fit(module, batches())
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == list(range(9))
    for name in ("body.weight", "head.weight"):
        assert (recording.series(name, "l2", quantity="update")[1:] > 0).all()


def test_the_curves_reach_the_loggers_and_other_callbacks(tmp_path):
    class Monitor(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            self.seen = dict(trainer.callback_metrics)

    monitor = Monitor()
    loggers = [
        lightning.loggers.CSVLogger(tmp_path / "csv"),
        lightning.loggers.TensorBoardLogger(tmp_path / "tensorboard"),
    ]
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer_of(tmp_path, cb, monitor, logger=loggers, log_every_n_steps=2).fit(net_of(), batches())
    with open(next((tmp_path / "csv").rglob("metrics.csv")), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["normkit/weight_l2"]]
    recording = load(tmp_path / "a.norms")
    totals = np.sqrt(sum(recording.series(name, "l2") ** 2 for name in recording.tensors))
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]  # Lightning counts the batches that stepped from 0
    np.testing.assert_allclose([float(row["normkit/weight_l2"]) for row in rows], totals[2::2], rtol=1e-5)
    assert {"normkit/update_ratio", "normkit/update_ratio_tensor", "normkit/grad_l2", "normkit/findings"} <= {*rows[0]}
    assert float(monitor.seen["normkit/weight_l2"]) == pytest.approx(totals[-1], rel=1e-5)
    assert_tensorboard_has(tmp_path / "tensorboard", "normkit/weight_l2", totals[2::2])


def assert_tensorboard_has(folder, tag, values):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(folder.rglob("events*")).parent))
    events.Reload()
    np.testing.assert_allclose([event.value for event in events.Scalars(tag)], values, rtol=1e-5)


# --- how a fit begins, goes on and ends ------------------------------------------------------------------------------


def test_a_second_fit_goes_on_in_the_same_file(tmp_path):
    module, cb = net_of(), RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer = trainer_of(tmp_path, cb)
    trainer.fit(module, batches())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, batches())
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == list(range(17))
    assert len(recording.meta["attempts"]) == 2
    assert [path.name for path in tmp_path.glob("*.norms")] == ["a.norms"]


@pytest.mark.parametrize(
    ("resume", "files", "steps"),
    [(False, ["a-2.norms", "a.norms"], list(range(8, 17))), (True, ["a.norms"], list(range(17)))],
)
def test_from_a_checkpoint_under_the_trainers_steps(tmp_path, resume, files, steps):
    trainer = trainer_of(tmp_path, RecordNorms(tmp_path / "a.norms", every=1, quiet=True))
    trainer.fit(net_of(), batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = RecordNorms(tmp_path / "a.norms", every=1, quiet=True, resume=resume)
    trainer_of(tmp_path, again, max_epochs=2).fit(
        net_of(), batches(), ckpt_path=tmp_path / "a.ckpt", weights_only=False
    )
    assert sorted(path.name for path in tmp_path.glob("*.norms")) == files
    recording = load(again.recorder.path)
    assert recording.steps.tolist() == steps
    assert recording.epochs[-8:].tolist() == [1] * 8


@pytest.mark.parametrize(
    ("error", "end"), [(ZeroDivisionError, "error: ZeroDivisionError"), (KeyboardInterrupt, "interrupted")]
)
def test_what_ends_a_fit_is_written_down(tmp_path, error, end):
    def fails(self, batch, batch_idx):
        if batch_idx == 3:
            raise error
        return type(self).__mro__[0].whole_step(self, batch, batch_idx)

    module = net_of()
    type(module).whole_step, type(module).training_step = type(module).training_step, fails
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        trainer_of(tmp_path, cb).fit(module, batches())
    recording = load(tmp_path / "a.norms")
    assert recording.meta["end"] == end
    assert recording.steps.tolist() == [0, 1, 2, 3]


def test_training_is_the_same_with_and_without(tmp_path):
    def trained(*callbacks):
        module = net_of()
        trainer_of(tmp_path, *callbacks, gradient_clip_val=0.1).fit(module, batches())
        return module.state_dict()

    ours, theirs = trained(RecordNorms(tmp_path / "a.norms", every=1, quiet=True)), trained()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_recorders_in_one_trainer(tmp_path):
    pair = [RecordNorms(tmp_path / f"{name}.norms", select=f"{name}.*", quiet=True) for name in ("body", "head")]
    trainer_of(tmp_path, *pair).fit(net_of(), batches())
    assert list(load(tmp_path / "head.norms").tensors) == ["head.weight", "head.bias"]


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"every": 0}, "every=0: expected a number of optimizer steps of at least 1, 'auto'"),
        ({"what": "weights"}, "what='weights': expected some of weight, grad, update"),
        ({"step": 5}, "step=5 says where a resumed run stands; it needs resume=True or 'auto'"),
        ({"budget": "huge"}, "budget='huge': expected a size such as '256 MB'"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(arguments, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        RecordNorms(**arguments)


def test_a_rule_that_matches_nothing_stops_the_fit_before_it_starts(tmp_path):
    cb = RecordNorms(tmp_path / "a.norms", select="bdoy.*", quiet=True)
    with pytest.raises(ArgumentError, match=r"select='bdoy\.\*' matches none of 4 parameters"):
        trainer_of(tmp_path, cb).fit(net_of(), batches())
    assert not (tmp_path / "a.norms").exists()


def test_one_callback_for_two_fits_at_once_is_refused(tmp_path):
    cb = RecordNorms(tmp_path / "a.norms", quiet=True)

    class Nested(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            trainer_of(tmp_path, cb).fit(net_of(), batches())

    with pytest.raises(StateError, match=r"this RecordNorms records another fit in .* just now; give each trainer"):
        trainer_of(tmp_path, cb, Nested()).fit(net_of(), batches())


def test_the_class_instead_of_an_instance_is_said(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"callbacks=\[RecordNorms\] is the class; give an instance: RecordNorms\(\)"
    ):
        trainer_of(tmp_path, RecordNorms).fit(net_of(), batches())


def test_a_module_without_optimizer_is_said(tmp_path):
    module = net_of(configure_optimizers=lambda self: None)
    with pytest.raises(ArgumentError, match=r"Net\.configure_optimizers gives no optimizer, so there are no steps"):
        trainer_of(tmp_path, RecordNorms(tmp_path / "a.norms", quiet=True)).fit(module, batches())


def test_a_process_that_is_not_the_first_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    logger = lightning.loggers.CSVLogger(tmp_path / "csv")
    trainer_of(tmp_path, cb, logger=logger, log_every_n_steps=1).fit(net_of(), batches())
    assert not (tmp_path / "a.norms").exists()
