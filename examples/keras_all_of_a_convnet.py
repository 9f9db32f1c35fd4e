"""Every weight and bias of a convolutional network at the end of every epoch, for TensorBoard.

`tensorboard --logdir logs` then shows conv1/kernel/l2, conv1/bias/l2, and so on, those of the inner block among them.
"""

import argparse

import keras
from sklearn.datasets import load_digits

import normkit.keras as nk


def build():
    block = keras.Sequential(
        [
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv2"),
            keras.layers.BatchNormalization(name="bn2"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ],
        name="block",
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            block,
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    digits = load_digits()
    model = build()
    callback = nk.record(tensorboard="logs/convnet")
    model.fit(digits.images[..., None] / 16, digits.target, epochs=args.epochs, verbose=2, callbacks=[callback])
    return model


if __name__ == "__main__":
    main()
