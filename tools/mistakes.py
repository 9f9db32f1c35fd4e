"""The mistakes of this field, as rows for tools/mutants.py: what, file, old text, new text, tests that must fail.

Add a row with each formula that people get wrong; a row that no test catches is a missing test.
"""

from __future__ import annotations

Row = tuple[str, str, str, str, tuple[str, ...]]

RECORD = ("tests/torch_door/test_record.py",)
WALK = ("tests/torch_door/test_walk.py",)
SELECT = ("tests/test_select.py",)

MISTAKES: list[Row] = [
    # --- which weights ------------------------------------------------------------------------------------------------
    (
        "a frozen parameter taken with the trainable ones",
        "src/normkit/rules.py",
        'return "" if param.trainable else "frozen"',
        'return ""',
        SELECT,
    ),
    (
        "a pattern that starts in the middle of a name",
        "src/normkit/rules.py",
        r"(?s:.*\.)?",
        r"(?s:.*)",
        SELECT,
    ),
    (
        "names alone reach every role, so that a bias is decayed",
        "src/normkit/select.py",
        "why = barred(param, rule.roles or default)",
        'why = barred(param, rule.roles or ("trainable",))',
        SELECT,
    ),
    (
        "what is taken away comes back",
        "src/normkit/select.py",
        "if term.meets(param)), None):\n        return False",
        "if not term.meets(param)), None):\n        return False",
        SELECT,
    ),
    (
        "a tied weight counted once per name",
        "src/normkit/torch/walk.py",
        "        ties.setdefault(hit.key, []).append(hit)",
        "        ties.setdefault((hit.key, hit.path), []).append(hit)",
        WALK,
    ),
    (
        "views of one memory taken for ties",
        "src/normkit/torch/walk.py",
        "return (tensor.device, address, tensor.dtype, tuple(tensor.shape), tensor.stride())",
        "return (tensor.device, tensor.untyped_storage().data_ptr())",
        WALK,
    ),
    (
        "a tied embedding and head called a kernel",
        "src/normkit/torch/walk.py",
        'return 0 if role == "embedding" else',
        'return 4 if role == "embedding" else',
        WALK,
    ),
    (
        "outputs and inputs of a transposed convolution exchanged",
        "src/normkit/torch/layers.py",
        'CONV_TRANSPOSE: tuple[Row, ...] = (("weight", "kernel", (1,), (0,)), BIAS)',
        'CONV_TRANSPOSE: tuple[Row, ...] = (("weight", "kernel", (0,), (1,)), BIAS)',
        ("tests/torch_door/test_layers.py",),
    ),
    (
        "a spectral norm's power iteration runs on for being looked at",
        "src/normkit/torch/effective.py",
        'module.__dict__["training"] = False',
        'module.__dict__["training"] = True',
        ("tests/torch_door/test_walk_effective.py",),
    ),
    # --- recording ----------------------------------------------------------------------------------------------------
    (
        "the last step not recorded",
        "src/normkit/recording/recorder.py",
        "and self._newest.step == self.steps and self._complete()",
        "and self._complete()",
        RECORD,
    ),
    (
        "the weights before training not recorded",
        "src/normkit/torch/record.py",
        "        self._begun = True\n        self._record_weights()\n",
        "        self._begun = True\n",
        RECORD,
    ),
    (
        "the gradient scaler's factor left in the gradients",
        "src/normkit/torch/columns.py",
        "unscale=None if scale is None else Fetched(scale)",
        "unscale=None",
        RECORD,
    ),
    (
        "a square divided by the scale once",
        "src/normkit/recording/packet.py",
        '"sq": 2,',
        '"sq": 1,',
        ("tests/recording_room/test_packet.py",),
    ),
    (
        "steps that the gradient scaler skipped are counted",
        "src/normkit/torch/record.py",
        "self._reads(found) and found.item():",
        "self._reads(found) and False:",
        RECORD,
    ),
    (
        "a step skipped on the device is written",
        "src/normkit/recording/packet.py",
        "            if skipped:\n                return None\n",
        "",
        ("tests/recording_room/test_packet.py",),
    ),
    (
        "the update measured against the copy of an earlier step",
        "src/normkit/torch/columns.py",
        "            for weight, copy in zip(weights, copies, strict=True):\n                copy.copy_(weight)\n",
        "            pass\n",
        RECORD,
    ),
    (
        "gradients of a closure read before it ran",
        "src/normkit/torch/columns.py",
        'if "grad" in what and not closure:',
        'if "grad" in what:',
        RECORD,
    ),
    (
        "an optimizer's step counted for each optimizer",
        "src/normkit/torch/record.py",
        "                else:\n                    self._stale = True\n",
        "                else:\n                    self.steps += 1\n                    self._stale = True\n",
        RECORD,
    ),
    (
        "an interval counted from the wrong step",
        "src/normkit/recording/schedule.py",
        "step % self.rule.steps",
        "(step - 1) % self.rule.steps",
        ("tests/recording_room/test_schedule.py",),
    ),
    (
        "the overhead of recording counted as training",
        "src/normkit/recording/schedule.py",
        "training = time.perf_counter() - self._began - self._spent",
        "training = time.perf_counter() - self._began + 100 * self._spent",
        ("tests/recording_room/test_schedule.py",),
    ),
    (
        "scalars stored with the step before",
        "src/normkit/recording/recorder.py",
        "if newest is None or newest.step != self.steps or self._writer is None:",
        "if newest is None or self._writer is None:",
        RECORD,
    ),
    # --- files and findings -------------------------------------------------------------------------------------------
    (
        "an existing file written over",
        "src/normkit/store/paths.py",
        "os.O_CREAT | os.O_EXCL | os.O_WRONLY",
        "os.O_CREAT | os.O_WRONLY",
        ("tests/store_room/test_paths.py",),
    ),
]
