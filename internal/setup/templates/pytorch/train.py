#!/usr/bin/env python3
"""Train a small residual CNN on Fashion-MNIST, on a GPU or else the CPU.

    go tool mage run -cmd='python3 train.py --epochs=3'

It needs PyTorch and numpy alone, and downloads nothing: the data comes with
the image. Replace it with a program of your own.
"""

import argparse
import gzip
import math
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 10


def haar(x):
    """Return the 2x2 Haar transform: N x C x H x W -> N x 4C x H/2 x W/2."""
    a, b = x[..., ::2, ::2], x[..., ::2, 1::2]
    c, d = x[..., 1::2, ::2], x[..., 1::2, 1::2]
    parts = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
    return torch.cat(parts, dim=1) / 2


def convolution(inputs, outputs, width):
    """Return a circular convolution. Batch norm makes up for its bias."""
    return nn.Conv2d(inputs, outputs, width, padding=width // 2,
                     padding_mode="circular", bias=False)


class Block(nn.Module):
    """A residual block, with a 1x1 convolution as its shortcut."""

    def __init__(self, inputs, outputs, dropout=0.5):
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout2d(dropout)  # of whole channels
        self.conv2 = convolution(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(convolution(inputs, outputs, 1),
                                      nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.dropout(F.relu(self.bn1(self.conv1(x))))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Network(nn.Module):
    """Four blocks, a Haar transform before each: 32 x 32 pixels -> 2 x 2."""

    def __init__(self, channels=1):
        super().__init__()
        widths = (channels, 16, 32, 64, 128)
        self.blocks = nn.ModuleList(
            Block(4 * i, o) for i, o in zip(widths, widths[1:]))
        self.linear = nn.Linear(2 * 2 * widths[-1], CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = block(haar(x))
        return self.linear(x.flatten(1))


def read_idx(path):
    """Return the bytes in an IDX file, in the shape that its header has."""
    with gzip.open(path) as file:
        data = file.read()
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} isn't an IDX file of bytes")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    values = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())


def load(folder, part, device):
    """Return images (N x 28 x 28, bytes) and labels of a part of the data."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return images.to(device), labels.long().to(device)


def prepare(images):
    """Return N x 1 x 32 x 32 from -1 (black, as is the margin) to 1."""
    return F.pad(images[:, None].float() / 127.5 - 1, (2, 2, 2, 2), value=-1.0)


def train(network, optimizer, images, labels, batch_size):
    """Train for an epoch. Return its mean loss and its accuracy."""
    network.train()
    # Summed on the device: asking at each step would make the GPU wait.
    loss_sum = torch.zeros((), device=images.device)
    correct = torch.zeros((), device=images.device)
    order = torch.randperm(len(images)).to(images.device)
    for batch in order.split(batch_size):
        x, y = prepare(images[batch]), labels[batch]
        mirrored = torch.rand(len(batch), 1, 1, 1, device=x.device) < 0.5
        logits = network(torch.where(mirrored, x.flip(-1), x))
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        correct += (logits.argmax(1) == y).sum()
    return loss_sum.item() / len(images), correct.item() / len(images)


@torch.inference_mode()
def test(network, images, labels, batch_size):
    """Return the accuracy: how much is classified correctly, 0 to 1."""
    network.eval()
    batches = zip(images.split(batch_size), labels.split(batch_size))
    correct = sum((network(prepare(x)).argmax(1) == y).sum()
                  for x, y in batches)
    return correct.item() / len(images)


def save(path, state):
    """Write a checkpoint: the file is always the old or the new one, whole."""
    new = path.with_name(path.name + ".new")
    with open(new, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def count(text):
    """Return a flag's number of things."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return value


def rate(text):
    """Return a flag's learning rate."""
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a positive number")
    return value


def parse_flags():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=count, default=50, help="train for so many epochs")
    add("--batch-size", type=count, default=500, help="images in a step")
    add("--lr", type=rate, default=1e-3, help="learning rate of Adam")
    add("--data-dir", type=Path, default="/usr/share/datasets/fashion-mnist",
        help="folder with the data")
    add("--checkpoint", type=Path, default="artifacts/checkpoint.pt",
        help="file to write after each epoch")
    add("--seed", type=int, default=0,
        help="where initial values, order, flips and dropout come from")
    return parser.parse_args()


def main():
    flags = parse_flags()
    torch.manual_seed(flags.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        why = "this PyTorch is built without CUDA"
        if torch.backends.cuda.is_built():
            why = "PyTorch finds none here"
        print(f"NO GPU, running on the CPU: {why}", file=sys.stderr)
    try:
        train_set = load(flags.data_dir, "train", device)
        test_set = load(flags.data_dir, "t10k", device)
    except (OSError, EOFError, ValueError) as error:
        sys.exit(f"{error}. Name the data's folder with --data-dir")
    folder = flags.checkpoint.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is not writable")
    except OSError as error:
        sys.exit(f"{error}. Name a file to write to with --checkpoint")
    network = Network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=flags.lr)
    size = sum(p.numel() for p in network.parameters())
    where = f"{device} ({torch.get_num_threads()} threads)"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    print(f"Network: {size} parameters, on {where}, seed {flags.seed}",
          flush=True)
    for epoch in range(1, flags.epochs + 1):
        start = time.perf_counter()
        loss, train_acc = train(network, optimizer, *train_set,
                                flags.batch_size)
        speed = len(train_set[0]) / (time.perf_counter() - start)
        if not math.isfinite(loss):
            sys.exit(f"The loss is {loss} in epoch {epoch}: the training has "
                     "diverged. Try a smaller --lr")
        test_acc = test(network, *test_set, flags.batch_size)
        print(f"[{epoch:2}/{flags.epochs}] loss = {loss:.4f} "
              f"train_acc = {train_acc:.4f} test_acc = {test_acc:.4f} "
              f"({speed:.0f} images/s)", flush=True)
        save(flags.checkpoint, {"epoch": epoch,
                                "network": network.state_dict(),
                                "optimizer": optimizer.state_dict()})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
