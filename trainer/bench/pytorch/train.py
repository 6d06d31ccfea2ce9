"""The predecessor's training in PyTorch, to measure the trainer against: the same network,
batch, optimiser and data set. --variant=plain is as it was written (a DataLoader, float32),
tuned has what PyTorch offers: data on the GPU, torch.compile with CUDA graphs,
channels-last, bfloat16. It prints one line of JSON.

--device=cpu is for checking this script, not for measuring: there the tuned variant is compiled
to PyTorch's own operations. With --from, training begins with the network of one of the trainer's
checkpoints, so that the two can be compared step by step.

Not yet run on a GPU.
"""

import argparse
import collections
import gzip
import json
import pathlib
import struct
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
    def __init__(self, inputs, outputs, dropout):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout2d(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode="circular", bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(inputs, outputs, 1, bias=False), bn=nn.BatchNorm2d(outputs)))

    def forward(self, x):
        y = self.drop(functional.relu(self.bn1(self.conv1(x))))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Network(nn.Module):
    """The network, whose parts have the names that they have in the trainer's checkpoints."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.block1 = Block(4 * channels, 16, dropout)
        self.block2 = Block(64, 32, dropout)
        self.block3 = Block(128, 64, dropout)
        self.block4 = Block(256, 128, dropout)
        self.linear = nn.Linear(512, 10)

    def forward(self, x):
        for block in self.block1, self.block2, self.block3, self.block4:
            x = block(haar(x))
        return self.linear(x.flatten(1))


def network(checkpoint):
    """Makes the network for gray images: new, or as the file has it that the trainer wrote."""
    if not checkpoint:
        return Network(1, 0.5)
    raw = pathlib.Path(checkpoint).read_bytes()
    magic, version, length = struct.unpack_from("<8sII", raw)
    if magic != b"BERTHCKP" or version != 1:
        sys.exit(f"{checkpoint} isn't a checkpoint of the trainer, version 1")
    header, at, state = json.loads(raw[16 : 16 + length]), 16 + length, {}
    for t in header["tensors"]:
        values = np.frombuffer(raw, "<f4", int(np.prod(t["shape"])), at)
        state[t["name"]] = torch.from_numpy(values.reshape(t["shape"]).copy())
        at += values.nbytes
    model = Network(header["channels"], header["dropout"])
    model.load_state_dict({k: state.get(k, v) if k.endswith("num_batches_tracked") else state[k] for k, v in model.state_dict().items()})
    return model


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


def plain(model, train, test, args):
    """Returns a function that trains for an epoch, and one that returns the test's loss and accuracy."""
    model = model.to(args.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    load = dict(batch_size=args.batch_size, num_workers=args.workers, pin_memory=args.device == "cuda")
    training = torch.utils.data.DataLoader(Images(*train, True), shuffle=True, **load)
    tests = torch.utils.data.DataLoader(Images(*test, False), **load)

    def epoch():
        model.train()
        total = 0
        for x, y in training:
            x, y = x.to(args.device), y.to(args.device)
            loss = functional.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(y)
        return total / len(train[1])

    return epoch, lambda: measured(model, ((x.to(args.device), y.to(args.device)) for x, y in tests))


def tuned(model, train, test, args):
    """Returns what plain returns."""
    gpu = args.device == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    model = model.to(args.device, memory_format=torch.channels_last)
    # A learning rate on the GPU is what a captured step can read.
    options = dict(lr=torch.tensor(1e-3, device=args.device), capturable=True) if gpu else dict(lr=1e-3)
    optimiser = torch.optim.Adam(model.parameters(), fused=True, **options)
    x, y = prepare(train[0]).to(args.device), train[1].to(args.device)
    tx, ty = prepare(test[0]).to(args.device), test[1].to(args.device)

    @torch.compile(**(dict(mode="reduce-overhead") if gpu else dict(backend="aot_eager")))
    def step_loss(images, labels):
        with torch.autocast(args.device, torch.bfloat16):
            return functional.cross_entropy(model(images), labels)

    def epoch():
        model.train()
        order = torch.randperm(len(y), device=args.device)
        flips = torch.rand(len(y), device=args.device) < 0.5
        total = torch.zeros((), device=args.device)
        for part in order.split(args.batch_size):
            images = x[part]
            images = torch.where(flips[part].view(-1, 1, 1, 1), images.flip(-1), images).contiguous(memory_format=torch.channels_last)
            torch.compiler.cudagraph_mark_step_begin()
            loss = step_loss(images, y[part])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total += loss.detach() * len(part)
        return total / len(y)

    return epoch, lambda: measured(model, zip(tx.split(1000), ty.split(1000)))


def measured(model, batches):
    """Returns the mean loss and the accuracy over batches of images and labels."""
    model.eval()
    loss = correct = images = 0
    with torch.no_grad():
        for x, y in batches:
            scores = model(x)
            loss += functional.cross_entropy(scores, y, reduction="sum").item()
            correct += (scores.argmax(1) == y).sum().item()
            images += len(y)
    return loss / images, correct / images


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--variant", choices=["plain", "tuned"], required=True)
    p.add_argument("--data", required=True, help="folder with Fashion-MNIST's four files")
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    p.add_argument("--from", dest="checkpoint", help="begin with the network of this checkpoint of the trainer")
    p.add_argument("--epochs", type=int, default=50)
    p.add_argument("--batch-size", type=int, default=500)
    p.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    gpu = args.device == "cuda"
    if gpu and not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} sees no GPU: nvidia-smi says whether there is one, and torch.version.cuda ({torch.version.cuda}) which CUDA it is for")
    wait = torch.cuda.synchronize if gpu else lambda: None
    torch.manual_seed(args.seed)
    train = read(args.data, "train-images-idx3-ubyte"), read(args.data, "train-labels-idx1-ubyte").long()
    test = read(args.data, "t10k-images-idx3-ubyte"), read(args.data, "t10k-labels-idx1-ubyte").long()
    epoch, accuracy = {"plain": plain, "tuned": tuned}[args.variant](network(args.checkpoint), train, test, args)
    losses = []

    def timed(epochs):
        start = time.perf_counter()
        losses.extend([epoch() for _ in range(epochs)])
        wait()
        return time.perf_counter() - start

    first = timed(min(args.epochs, 1))  # compiles, too
    later = max(args.epochs - 1, 0)
    seconds = timed(later)
    test_loss, test_accuracy = accuracy()
    print(json.dumps({
        "variant": args.variant, "device": torch.cuda.get_device_name() if gpu else "cpu", "torch": torch.__version__, "epochs": args.epochs,
        "first_epoch_seconds": first, "seconds_per_epoch": seconds / later if later else None,
        "images_per_second": len(train[1]) * later / seconds if later else None,
        "train_losses": [loss.item() for loss in losses], "test_loss": test_loss, "test_accuracy": test_accuracy,
    }))


if __name__ == "__main__":
    main()
