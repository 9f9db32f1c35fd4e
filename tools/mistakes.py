"""The mistakes of this field, as rows for tools/mutants.py: what, file, old text, new text, tests that must fail.

Add a row with each formula that people get wrong; a row that no test catches is a missing test.
"""

from __future__ import annotations

Row = tuple[str, str, str, str, tuple[str, ...]]

RECORD = "tests/torch_door/test_record.py"
LOOPS = "tests/torch_door/test_record_loops.py"
KERNEL = "tests/ops_room/test_cpu_kernel.py"
PACKET = "tests/recording_room/test_packet.py"
SCHEDULE = "tests/recording_room/test_schedule.py"
WALK = ("tests/torch_door/test_walk.py",)
SELECT = ("tests/test_select.py",)
NORMS = ("tests/test_norms.py::test_every_kind_of_any_array", "tests/test_norms.py::test_the_population_std_is_meant")

MISTAKES: list[Row] = [
    # --- sums and norms -----------------------------------------------------------------------------------------------
    (
        "squares added up in float32",
        "src/normkit/ops/kernels.py",
        "        square += x * x\n    return total, length, square\n",
        "        square = float(np.float32(square + x * x))\n    return total, length, square\n",
        (f"{KERNEL}::test_sums_of_every_length[float32]",),
    ),
    (
        "the sign left in the magnitude, so that -0.0 is no zero",
        "src/normkit/ops/kernels.py",
        "(1 << (width - 1)) - 1",
        "(1 << width) - 1",
        (f"{KERNEL}::test_minus_zero_is_a_zero[float32]",),
    ),
    (
        "infinities not counted with the non-finite",
        "src/normkit/ops/kernels.py",
        'icmp_unsigned(">=", *args[1:])',
        'icmp_unsigned(">", *args[1:])',
        (f"{KERNEL}::test_special_values_follow_ieee",),
    ),
    (
        "the sign of the product with the update flipped",
        "src/normkit/ops/kernels.py",
        "dot += x * before",
        "dot -= x * before",
        (f"{KERNEL}::test_step_sums_of_every_length[float32]",),
    ),
    (
        "the update taken backwards",
        "src/normkit/ops/kernels.py",
        "x = _as_float64(w[i]) - before",
        "x = before - _as_float64(w[i])",
        (f"{KERNEL}::test_step_sums_of_every_length[float32]",),
    ),
    (
        "the update taken in float32",
        "src/normkit/ops/kernels.py",
        "x = _as_float64(w[i]) - before",
        "x = float(np.float32(_as_float64(w[i]) - before))",
        (f"{KERNEL}::test_the_step_of_float32_weights_is_taken_in_float64",),
    ),
    (
        "the weights not copied along",
        "src/normkit/ops/kernels.py",
        "        if kept.size:\n            _copy(w[start:stop], kept[start:stop])\n",
        "",
        (f"{KERNEL}::test_grad_sums_copy_the_weights_bit_by_bit[float32]",),
    ),
    (
        "bfloat16 read as float16",
        "src/normkit/ops/cpu.py",
        '"float16": 2, "bfloat16": 3',
        '"float16": 3, "bfloat16": 2',
        ("tests/ops_room/test_numpy_ops.py::test_any_dtype",),
    ),
    (
        "largest magnitudes merged by adding",
        "src/normkit/ops/cpu.py",
        "_LARGEST = (3, 9)",
        "_LARGEST = ()",
        (f"{KERNEL}::test_sums_of_every_length[float32]",),
    ),
    (
        "an empty tensor taken for a missing one",
        "src/normkit/ops/cpu.py",
        "    matrix[:, table.present & (table.counts == 0)] = 0.0\n",
        "",
        (f"{KERNEL}::test_absent_and_empty_blocks",),
    ),
    (
        "the axes kept exchanged with the axes summed",
        "src/normkit/ops/numpy.py",
        "np.moveaxis(x, kept, range(len(kept)))",
        "np.moveaxis(x, kept, range(-len(kept), 0))",
        ("tests/ops_room/test_numpy_ops.py::test_rows",),
    ),
    (
        "the square root dropped from l2",
        "src/normkit/norms.py",
        '"l2": lambda sums, counts: np.sqrt(sums[_SQ])',
        '"l2": lambda sums, counts: sums[_SQ]',
        NORMS,
    ),
    (
        "rms not divided by the number of entries",
        "src/normkit/norms.py",
        '"rms": lambda sums, counts: np.sqrt(sums[_SQ] / counts)',
        '"rms": lambda sums, counts: np.sqrt(sums[_SQ])',
        NORMS,
    ),
    (
        "the mean of the magnitudes for the mean",
        "src/normkit/norms.py",
        '"mean": lambda sums, counts: sums[_SUM] / counts',
        '"mean": lambda sums, counts: sums[_ABS] / counts',
        NORMS,
    ),
    (
        "std with ddof 1",
        "src/normkit/norms.py",
        "variance = mean_square - (sums[_SUM] / counts) ** 2",
        "variance = (mean_square - (sums[_SUM] / counts) ** 2) * counts / (counts - 1)",
        NORMS,
    ),
    (
        "a NaN lost where two parts merge",
        "src/normkit/types.py",
        "math.isnan(a) or a >= b",
        "a >= b",
        ("tests/test_sums.py",),
    ),
    (
        "outputs and inputs exchanged",
        "src/normkit/groups.py",
        'param.out_axes if per == "out" else param.in_axes',
        'param.in_axes if per == "out" else param.out_axes',
        ("tests/test_groups.py",),
    ),
    (
        "the squares of the singular values not squared in the stable rank",
        "src/normkit/spectrum.py",
        "np.sum((sigma / largest) ** 2)",
        "np.sum(sigma / largest)",
        ("tests/test_spectrum.py",),
    ),
    # --- which weights ------------------------------------------------------------------------------------------------
    (
        "a frozen parameter taken with the trainable ones",
        "src/normkit/select/rules.py",
        'return "" if param.trainable else "frozen"',
        'return ""',
        SELECT,
    ),
    (
        "a pattern that starts in the middle of a name",
        "src/normkit/select/rules.py",
        r"(?s:.*\.)?",
        r"(?s:.*)",
        ("tests/test_docs.py::test_docstring_examples_are_true[select/rules.py]",),
    ),
    (
        "names alone reach every role, so that a bias is decayed",
        "src/normkit/select/selection.py",
        "why = barred(param, rule.roles or default)",
        'why = barred(param, rule.roles or ("trainable",))',
        SELECT,
    ),
    (
        "what is taken away comes back",
        "src/normkit/select/selection.py",
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
        "and newest.step == self.steps and self._complete()",
        "and self._complete()",
        (f"{RECORD}::test_steps_recorded",),
    ),
    (
        "the weights before training not recorded",
        "src/normkit/torch/recorder.py",
        "        if not self._settle():\n            self._record_weights()\n",
        "        self._settle()\n",
        (f"{RECORD}::test_steps_recorded",),
    ),
    (
        "the gradient scaler's factor left in the gradients",
        "src/normkit/torch/columns.py",
        "unscale = None if scale is None else Fetched(scale)",
        "unscale = None",
        (f"{RECORD}::test_a_gradient_scaler_is_divided_out_and_its_skipped_steps_are_none",),
    ),
    (
        "a square divided by the scale once",
        "src/normkit/recording/packet.py",
        '"sq": 2,',
        '"sq": 1,',
        (PACKET,),
    ),
    (
        "steps that the gradient scaler skipped are counted",
        "src/normkit/torch/recorder.py",
        "fate = self._fate(found, wanted=measured)",
        "fate = self._fate(None)",
        (f"{RECORD}::test_a_step_skipped_on_the_device_is_dropped_later",),
    ),
    (
        "a step skipped on the device is written",
        "src/normkit/recording/packet.py",
        "            if skipped:\n                return None\n",
        "",
        (PACKET,),
    ),
    (
        "the update measured against the copy of an earlier step",
        "src/normkit/torch/columns.py",
        "            for weight, copy in zip(weights, copies, strict=True):\n                copy.copy_(weight)\n",
        "            pass\n",
        (f"{LOOPS}::test_closures",),
    ),
    (
        "gradients of a closure read before it ran",
        "src/normkit/torch/recorder.py",
        "closure=closure is not None,",
        "closure=False,",
        (f"{LOOPS}::test_closures",),
    ),
    (
        "an optimizer's step counted for each optimizer",
        "src/normkit/torch/recorder.py",
        "                else:\n                    self._stale = True\n",
        "                else:\n                    self.steps += 1\n                    self._stale = True\n",
        ("tests/torch_door/test_record_rounds.py::test_several_optimizers_the_first_counts",),
    ),
    (
        "an interval counted from the wrong step",
        "src/normkit/recording/schedule.py",
        "step % rule.steps",
        "(step - 1) % rule.steps",
        (SCHEDULE,),
    ),
    (
        "the overhead of recording counted as training",
        "src/normkit/recording/schedule.py",
        "training = time.perf_counter() - self._began - self._spent",
        "training = time.perf_counter() - self._began + 100 * self._spent",
        (SCHEDULE,),
    ),
    (
        "a follower's step filed under the next round",
        "src/normkit/torch/recorder.py",
        "number > 0 and self.steps > self._first)",
        "False)",
        ("tests/torch_door/test_record_rounds.py",),
    ),
    (
        "scalars stored with the step before",
        "src/normkit/recording/recorder.py",
        "if newest is not None and newest.step == self.steps:\n            with",
        "if newest is not None:\n            with",
        (f"{RECORD}::test_log_goes_with_the_step_just_made",),
    ),
    # --- files and findings -------------------------------------------------------------------------------------------
    (
        "an existing file written over",
        "src/normkit/store/paths.py",
        "os.O_CREAT | os.O_EXCL | os.O_WRONLY",
        "os.O_CREAT | os.O_WRONLY",
        ("tests/store_room/test_paths.py",),
    ),
    (
        "the first of several records of a step counts",
        "src/normkit/readers/index.py",
        "positions = np.flatnonzero(kept)[::-1]",
        "positions = np.flatnonzero(kept)",
        ("tests/readers_room/test_recording.py",),
    ),
    (
        "a repeated attempt leaves the steps that it went back over",
        "src/normkit/readers/index.py",
        "(steps < steps[attempts == attempt].min())",
        "(steps != steps[attempts == attempt].min())",
        ("tests/readers_room/test_recording.py",),
    ),
    (
        "one quiet record is enough to say that a bias has no effect",
        "src/normkit/diagnose/effect.py",
        "told & ((own < shares * limit) | ~usable).all(axis=0)",
        "told & ((own < shares * limit) & usable).any(axis=0)",
        ("tests/diagnose_room/test_no_effect.py",),
    ),
    (
        "a frozen tensor blamed for standing still",
        "src/normkit/diagnose/motion.py",
        "param.trainable and param.part",
        "param.part",
        ("tests/diagnose_room/test_findings.py",),
    ),
    # --- long, resumed and merged recordings --------------------------------------------------------------------------
    (
        "the mean of means taken without how many records each stands for",
        "src/normkit/store/pyramid.py",
        "planes[:, 1] * np.float64(records), 0.0)",
        "planes[:, 1] * np.float64(1), 0.0)",
        ("tests/store_room/test_pyramid.py",),
    ),
    (
        "a block of a superseded attempt counted beside the one that replaced it",
        "src/normkit/readers/envelope.py",
        "(blocks[:, LAST_STEP] < step)",
        "(blocks[:, LAST_STEP] <= step + 16)",
        ("tests/readers_room/test_envelope.py",),
    ),
    (
        "steps of earlier attempts left out when the optimizer counts anew",
        "src/normkit/recording/past.py",
        'int(newest["began"]) + counted - before',
        "counted - before",
        ("tests/recording_room/test_taking_over.py",),
    ),
    (
        "the first record of an attempt thinned away",
        "src/normkit/store/retention.py",
        " and seq not in firsts",
        "",
        ("tests/store_room/test_retention.py",),
    ),
    # --- the other doors, and the sinks -------------------------------------------------------------------------------
    (
        "rows of an embedding's gradient that have the same index not added up",
        "src/normkit/ops/tensorflow_traced.py",
        "    rows = summed_rows(slices)\n",
        "    rows = _values(slices)\n",
        ("tests/ops_room/test_tensorflow_ops.py",),
    ),
    (
        "the product with the weights after the step taken for that before it",
        "src/normkit/jax/traced.py",
        "update.at[DOT].add(-update[SQ])",
        "update",
        ("tests/jax_door/test_jax_record.py",),
    ),
    (
        "a Keras kernel's outputs taken for its inputs",
        "src/normkit/keras/layers.py",
        'DENSE: tuple[Row, ...] = (("kernel", "kernel", (-1,), (-2,)), BIAS',
        'DENSE: tuple[Row, ...] = (("kernel", "kernel", (-2,), (-1,)), BIAS',
        ("tests/keras_door/test_keras_walk.py",),
    ),
    (
        "the ratio of squares taken for that of lengths",
        "src/normkit/recording/figures.py",
        "np.sqrt(updates / weights)",
        "updates / weights",
        ("tests/recording_room/test_figures.py",),
    ),
    (
        "the checksum of an event not masked",
        "src/normkit/sinks/events.py",
        "((crc >> 15 | crc << 17) + 0xA282EAD8)",
        "(crc >> 15 | crc << 17)",
        ("tests/sinks_room/test_events.py",),
    ),
]
