"""L1 and L2 of every weight each 100 optimizer steps, for TensorBoard: `tensorboard --logdir logs`.

The first steps, where most happens, are recorded one by one, and the last one in any case.
"""

import argparse

import keras
from sklearn.datasets import load_digits

import normkit.keras as nk


def build():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, name="head")])
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    model = build()
    curves = nk.TensorBoard("logs/steps", norms=("l1", "l2"))
    callback = nk.record(every=nk.Every(100, first=10), tensorboard=curves)
    model.fit(pixels / 16, labels, epochs=args.epochs, verbose=2, callbacks=[callback])
    return model


if __name__ == "__main__":
    main()
