"""The predecessor's training in PyTorch, to measure the trainer against: the same network,
batch, optimiser and data set. --variant=plain is as it was written (a DataLoader, float32),
tuned has what PyTorch offers: data on the GPU, torch.compile with CUDA graphs,
channels-last, bfloat16. It prints one line of JSON.

Not yet run on a GPU.
"""

import argparse
import gzip
import json
import pathlib
import sys
import time

try:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional
except ModuleNotFoundError as e:
    sys.exit(f"{sys.executable} has no module {e.name}: install PyTorch and NumPy for it, or put another python3 first on the PATH")


def read(folder, name):
    """Reads an IDX file of bytes."""
    path = pathlib.Path(folder) / name
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(name + ".gz").read_bytes())
    dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape).copy())


def haar(x):
    """The 2x2 Haar transform: four channels, at half the size, for each."""
    a, b, c, d = x[:, :, ::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) * 0.5


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout2d(0.5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.drop(functional.relu(self.bn1(self.conv1(x))))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Network(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.blocks = nn.ModuleList([Block(4 * channels, 16), Block(64, 32), Block(128, 64), Block(256, 128)])
        self.linear = nn.Linear(512, 10)

    def forward(self, x):
        for block in self.blocks:
            x = block(haar(x))
        return self.linear(x.flatten(1))


class Images(torch.utils.data.Dataset):
    """Images as torchvision's transforms make them, one at a time."""

    def __init__(self, images, labels, flip):
        self.images, self.labels, self.flip = images, labels, flip

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        x = prepare(self.images[i : i + 1])[0]
        return (x.flip(-1) if self.flip and torch.rand(()) < 0.5 else x), self.labels[i]


def prepare(images):
    """Bytes of 28x28 to values from -1 to 1 of 1x32x32."""
    return (functional.pad(images.unsqueeze(1).float() / 255, (2, 2, 2, 2)) - 0.5) / 0.5


def plain(train, test, args, device):
    """Yields a function that trains for an epoch, and one that returns the test accuracy."""
    model = Network(1).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    load = dict(batch_size=args.batch_size, num_workers=args.workers, pin_memory=True)
    training = torch.utils.data.DataLoader(Images(*train, True), shuffle=True, **load)
    tests = torch.utils.data.DataLoader(Images(*test, False), **load)

    def epoch():
        model.train()
        for x, y in training:
            x, y = x.to(device), y.to(device)
            loss = functional.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def accuracy():
        model.eval()
        with torch.no_grad():
            return sum((model(x.to(device)).argmax(1).cpu() == y).sum().item() for x, y in tests) / len(test[1])

    return epoch, accuracy


def tuned(train, test, args, device):
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    model = Network(1).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-3, device=device), fused=True, capturable=True)
    x, y = prepare(train[0]).to(device), train[1].to(device)
    tx, ty = prepare(test[0]).to(device), test[1].to(device)

    @torch.compile(mode="reduce-overhead")
    def step_loss(images, labels):
        with torch.autocast("cuda", torch.bfloat16):
            return functional.cross_entropy(model(images), labels)

    def epoch():
        model.train()
        order = torch.randperm(len(y), device=device)
        flips = torch.rand(len(y), device=device) < 0.5
        for part in order.split(args.batch_size):
            images = x[part]
            images = torch.where(flips[part].view(-1, 1, 1, 1), images.flip(-1), images).contiguous(memory_format=torch.channels_last)
            torch.compiler.cudagraph_mark_step_begin()
            loss = step_loss(images, y[part])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def accuracy():
        model.eval()
        with torch.no_grad():
            return sum((model(i).argmax(1) == l).sum().item() for i, l in zip(tx.split(1000), ty.split(1000))) / len(ty)

    return epoch, accuracy


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--variant", choices=["plain", "tuned"], required=True)
    p.add_argument("--data", required=True, help="folder with Fashion-MNIST's four files")
    p.add_argument("--epochs", type=int, default=50)
    p.add_argument("--batch-size", type=int, default=500)
    p.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} sees no GPU: nvidia-smi says whether there is one, and torch.version.cuda ({torch.version.cuda}) which CUDA it is for")
    torch.manual_seed(args.seed)
    device = torch.device("cuda")
    train = read(args.data, "train-images-idx3-ubyte"), read(args.data, "train-labels-idx1-ubyte").long()
    test = read(args.data, "t10k-images-idx3-ubyte"), read(args.data, "t10k-labels-idx1-ubyte").long()
    epoch, accuracy = {"plain": plain, "tuned": tuned}[args.variant](train, test, args, device)
    start = time.perf_counter()
    epoch()  # compiles, too
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(args.epochs - 1):
        epoch()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    print(json.dumps({
        "variant": args.variant, "device": torch.cuda.get_device_name(), "torch": torch.__version__, "epochs": args.epochs,
        "first_epoch_seconds": first, "seconds_per_epoch": seconds / max(args.epochs - 1, 1),
        "images_per_second": len(train[1]) * (args.epochs - 1) / seconds if args.epochs > 1 else None, "test_accuracy": accuracy(),
    }))


if __name__ == "__main__":
    main()
