"""The Hugging Face callback with the real Trainer, and Accelerate through the torch door."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

import normkit.torch as nk
from normkit import ArgumentError, StateError, load
from normkit.transformers import RecordNorms, before_reporters

# The trainer and its libraries warn of each other's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")


def model():
    torch.manual_seed(0)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 20}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0))


def data(count=16):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 20, (count, 8), generator=generator)
    return [{"input_ids": row, "labels": row} for row in rows]


def trainer_of(folder, *callbacks, **settings):
    plain = {
        "output_dir": str(folder / "out"),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    arguments = transformers.TrainingArguments(**{**plain, **settings})
    return transformers.Trainer(
        model(), arguments, train_dataset=data(), eval_dataset=data(4), callbacks=list(callbacks)
    )


class Truth(transformers.TrainerCallback):
    """The l2 of all weights after each step, by torch."""

    def __init__(self):
        self.lengths = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.lengths.append(float(sum((p.detach().double() ** 2).sum() for p in model.parameters()) ** 0.5))

    def on_step_end(self, args, state, control, **kwargs):
        self.on_train_begin(args, state, control, **kwargs)


def assert_lengths(recording, lengths):
    """The recording's total length at each step."""
    totals = np.sqrt(sum(recording.series(name, "l2") ** 2 for name in recording.tensors))
    np.testing.assert_allclose(totals, lengths, rtol=1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=["plain", "gas", "bf16"]
)
def test_every_step(tmp_path, settings):
    truth, cb = Truth(), RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer_of(tmp_path, cb, truth, **settings).train()
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == list(range(7))
    assert_lengths(recording, truth.lengths)
    assert "transformer.wte.weight" in recording.tensors
    assert recording.meta["end"] == "finished"
    assert cb.recorder.path == tmp_path / "a.norms"


def test_the_curves_join_the_logs_and_every_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    class Reporter(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    truth = Truth()
    trainer = trainer_of(
        tmp_path,
        Reporter(),
        truth,
        RecordNorms(tmp_path / "a.norms", every=1, quiet=True),
        report_to="tensorboard",
        eval_strategy="steps",
        eval_steps=3,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6]
    np.testing.assert_allclose([entry["normkit/weight_l2"] for entry in logged], truth.lengths[2::2], rtol=1e-9)
    assert {"normkit/update_ratio", "normkit/update_ratio_tensor", "normkit/findings", "normkit/grad_l2"} <= {
        *logged[0]
    }
    assert [entry["normkit/weight_l2"] for entry in seen if "loss" in entry] == [
        entry["normkit/weight_l2"] for entry in logged
    ]
    assert not any("normkit/weight_l2" in entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert_tensorboard_has(tmp_path, "train/normkit/weight_l2", truth.lengths[2::2])


def assert_tensorboard_has(folder, tag, values):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(folder.rglob("events*")).parent))
    events.Reload()
    np.testing.assert_allclose([event.value for event in events.Scalars(tag)], values, rtol=1e-5)


def test_a_callback_is_still_found_among_its_callers():
    """The day transformers keeps its callbacks elsewhere, this fails."""

    class Last(transformers.TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            before_reporters(self)

    first, last = transformers.TrainerCallback(), Last()
    handler = transformers.trainer_callback.CallbackHandler(
        [transformers.trainer_callback.DefaultFlowCallback, first, last], None, None, None, None
    )
    handler.on_train_begin(None, transformers.TrainerState(), transformers.TrainerControl())
    assert handler.callbacks[1:] == [last, first]


@pytest.mark.parametrize(("resume", "files", "steps"), [(False, 2, [4, 5, 6]), (True, 1, [0, 1, 2, 3, 4, 5, 6])])
def test_from_a_checkpoint_under_the_trainers_steps(tmp_path, resume, files, steps):
    first = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer_of(tmp_path, first, max_steps=4, save_strategy="steps", save_steps=4).train()
    again = RecordNorms(tmp_path / "a.norms", every=1, quiet=True, resume=resume)
    trainer_of(tmp_path, again).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert len(list(tmp_path.glob("*.norms"))) == files
    recording = load(again.recorder.path)
    assert recording.steps.tolist() == steps
    assert recording.epochs[-2:].tolist() == [1, 1]


def test_trained_twice_and_after_an_error(tmp_path):
    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise ZeroDivisionError

    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer = trainer_of(tmp_path, cb, Fails)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.remove_callback(Fails)
    trainer.train()
    trainer.train()
    ends = [load(tmp_path / name).meta["end"] for name in ("a.norms", "a-2.norms", "a-3.norms")]
    assert ends == ["interrupted", "finished", "finished"]
    assert load(tmp_path / "a-3.norms").steps.tolist() == list(range(7))


def test_another_trainer_after_an_error(tmp_path):
    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise ZeroDivisionError

    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    broken = trainer_of(tmp_path, cb, Fails)
    with pytest.raises(ZeroDivisionError):
        broken.train()
    trainer_of(tmp_path, cb).train()
    assert load(tmp_path / "a.norms").meta["end"] == "interrupted"
    assert load(tmp_path / "a-2.norms").steps.tolist() == list(range(7))


def test_training_is_the_same_with_and_without(tmp_path):
    def trained(*callbacks):
        trainer = trainer_of(tmp_path, *callbacks)
        trainer.train()
        return trainer.model.state_dict()

    ours, theirs = trained(RecordNorms(tmp_path / "a.norms", every=1, quiet=True)), trained()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_refused_when_it_is_made():
    with pytest.raises(ArgumentError, match="every=0: expected a number of optimizer steps of at least 1, 'auto'"):
        RecordNorms(every=0)


def test_a_rule_that_matches_nothing_stops_before_training(tmp_path):
    cb = RecordNorms(tmp_path / "a.norms", select="haed.*", quiet=True)
    with pytest.raises(ArgumentError, match=r"select='haed\.\*' matches none of"):
        trainer_of(tmp_path, cb).train()
    assert not (tmp_path / "a.norms").exists()


def test_the_class_works_as_well_as_an_instance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer_of(tmp_path, RecordNorms).train()
    assert len(list((tmp_path / "runs").glob("*.norms"))) == 1


def test_one_callback_for_two_trainers_at_once_is_refused(tmp_path):
    cb = RecordNorms(tmp_path / "a.norms", quiet=True)

    class Nested(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            trainer_of(tmp_path, cb).train()

    with pytest.raises(StateError, match=r"this RecordNorms records another fit in .* just now"):
        trainer_of(tmp_path, cb, Nested()).train()


def test_a_process_that_is_not_the_first_records_nothing(tmp_path, monkeypatch):
    cb = RecordNorms(tmp_path / "a.norms", every=1, quiet=True)
    trainer = trainer_of(tmp_path, cb)
    monkeypatch.setenv("RANK", "1")
    trainer.train()
    assert not (tmp_path / "a.norms").exists()
    assert not any("normkit/weight_l2" in entry for entry in trainer.state.log_history)


# --- Accelerate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["model, optimizer", "optimizer alone"])
def test_accelerate_counts_the_steps_that_were_made(tmp_path, given):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
    net = torch.nn.Linear(4, 2)
    rows = torch.utils.data.DataLoader(torch.randn(9, 4), batch_size=1)
    net, optimizer, rows = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), rows)
    lengths = [float(net.weight.detach().double().norm())]
    things = (net, optimizer) if given == "model, optimizer" else (optimizer,)
    with nk.record(*things, to=tmp_path / "a.norms", every=1, quiet=True) as rec:
        for x in rows:
            with accelerator.accumulate(net):
                accelerator.backward(net(x).square().sum())
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                lengths.append(float(net.weight.detach().double().norm()))
    recording = load(tmp_path / "a.norms")
    assert recording.steps.tolist() == [0, 1, 2, 3] == list(range(rec.steps + 1))
    np.testing.assert_allclose(recording.series(next(iter(recording.tensors)), "l2"), lengths, rtol=1e-9)
