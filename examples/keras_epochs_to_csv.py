"""The norms of every weight at the end of every epoch, as a CSV file.

One line of normkit: the callback. KERAS_BACKEND=jax or torch gives the same table.
"""

import argparse

import keras
from sklearn.datasets import load_digits

import normkit.keras as nk


def build():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    model = build()
    model.fit(pixels / 16, labels, epochs=args.epochs, verbose=2, callbacks=[nk.record(csv="weight_norms.csv")])
    return model


if __name__ == "__main__":
    main()
