package kernels

// Sizes that the kernels have in common with who launches them.
const (
	TileRows   = 64  // rows whose sums for batch norm are taken at once
	PartImages = 512 // images in each part of the linear layer's gradient
	Features   = 512 // of the linear layer
	MaxClasses = 256
	PieceSize  = 256 // parameters in a piece, at most

	tileLines, tileColumns = 64, 16 // of products
)

// Tiles is the number of tiles of rows.
func Tiles(rows int) int { return over(rows, TileRows) }

// PartRows is the number of rows in each part of a convolution's weights' gradient: so few that
// a large GPU has something to do everywhere also where images are small, but no fewer than 256,
// and not much fewer than make 64 parts, since Adam adds them up one by one.
func PartRows(rows int) int { return 16 * over(min(max(over(rows, 64), 256), 2048), 16) }

// Parts is the number of these parts. Fewer rows may have more of them, since PartRows is a
// multiple of 16.
func Parts(rows int) int { return over(rows, PartRows(rows)) }

// MostParts is the largest number of parts that so many rows, or fewer, have.
func MostParts(rows int) int { return max(min(over(rows, 256), 64), over(rows, 2048)) }

// LinearParts is the number of parts of the linear layer's gradient.
func LinearParts(images int) int { return over(images, PartImages) }

func over(n, by int) int { return (n + by - 1) / by }

// Norm is the number of float32 in a batch norm's lines: scale, shift, the batch's mean,
// three for the way back, and one float64.
func Norm(channels int) int { return 8 * channels }

// State is struct State of device.h: what one step leaves to the next.
type State struct {
	Step    uint64
	Epoch   uint64
	First   int32
	Correct int32
	Loss    float64
	Sum     float64
	Stopped int32
	Images  int32
}

// Piece is struct Piece of piece.h: parameters whose gradients are sums of equally many
// parts. First is a place among the parameters, Gradient one among the gradients, Stride
// the distance of parts there.
type Piece struct{ First, Count, Gradient, Parts, Stride int32 }

// Shape is that of a convolution: rows are pixels of images of 1<<Log squared, K values go
// in, N come out, Width is that of the kernel, 1 or 3. K and N are multiples of 4.
type Shape struct{ Rows, K, N, Width, Log int }

// Set launches kernels; see the file of each for what it does.
type Set struct {
	Launcher
	Precision Precision
}

func (s Set) launch(kernel string, blocks [3]int, threads int, args ...any) error {
	for i, a := range args {
		if n, ok := a.(int); ok {
			args[i] = int32(n)
		}
	}
	return s.Launch(kernel, blocks, [3]int{threads, 1, 1}, args...)
}

// line launches a kernel of one thread for each of n things.
func (s Set) line(kernel string, n, threads int, args ...any) error {
	return s.launch(kernel, [3]int{over(n, threads), 1, 1}, threads, args...)
}

// Images are images on the device, as bytes.
type Images struct {
	Pixels, Labels, Order   Pointer
	Channels, Height, Width int
	Seed                    uint64 // of the flips
	Augment                 bool
}

func (s Set) Gather(x, labels Pointer, from Images, state Pointer, images int) error {
	augment := 0
	if from.Augment {
		augment = 1
	}
	return s.line("gather", images*256, 256, x, labels, from.Pixels, from.Labels, from.Order, state, from.Seed,
		from.Channels, from.Height, from.Width, augment)
}

func (s Set) Haar(x, in Pointer, images, channels int) error {
	return s.line("haar", images*256*channels, 256, x, in, channels)
}

// ConvForward also leaves the sums for batch norm in moments, if that isn't zero.
func (s Set) ConvForward(out, in, w, moments Pointer, c Shape) error {
	return s.launch("conv_forward_"+string(s.Precision), [3]int{over(c.Rows, tileLines), over(c.N, tileColumns), 1}, 128,
		out, in, w, moments, c.Rows, c.K, c.N, c.Width, c.Log)
}

// ConvBackward computes, or with add adds to, the gradient of a convolution's input.
func (s Set) ConvBackward(dx, grad, w Pointer, c Shape, add bool) error {
	n := 0
	if add {
		n = 1
	}
	return s.launch("conv_backward_"+string(s.Precision), [3]int{over(c.Rows, tileLines), over(c.K, tileColumns), 1}, 128,
		dx, grad, w, c.Rows, c.N, c.K, c.Width, c.Log, n)
}

func (s Set) ConvWeight(dw, in, grad Pointer, c Shape) error {
	return s.launch("conv_weight_"+string(s.Precision),
		[3]int{over(c.Width*c.Width*c.K, tileLines), over(c.N, tileColumns), Parts(c.Rows)}, 128,
		dw, in, grad, c.Rows, c.K, c.N, c.Width, c.Log, PartRows(c.Rows))
}

func (s Set) NormBatch(norm, runningMean, runningVar, moments, gamma, beta, state Pointer, rows, channels int) error {
	return s.launch("norm_batch", [3]int{channels, 1, 1}, 128,
		norm, runningMean, runningVar, moments, gamma, beta, state, rows, channels)
}

func (s Set) NormRunning(norm, runningMean, runningVar, gamma, beta Pointer, channels int) error {
	return s.line("norm_running", channels, 128, norm, runningMean, runningVar, gamma, beta, channels)
}

// Dropout says which channels are dropped.
type Dropout struct {
	Seed        uint64
	Probability float32 // 0: none
	Block       int
	First       int // place in its batch of the first image
}

// Keep is the factor of channels that stay.
func (d Dropout) Keep() float32 { return float32(1 / (1 - float64(d.Probability))) }

func (s Set) Activate(out, y, norm, state Pointer, d Dropout, rows, channels, log int) error {
	limit := uint64(float64(d.Probability) * (1 << 32))
	return s.line("activate", rows*channels/4, 256, out, y, norm, state, d.Seed, limit, d.Keep(), d.Block, d.First, rows, channels, log)
}

func (s Set) ActivateGrad(g, sums, a, y, norm Pointer, d Dropout, rows, channels int) error {
	return s.launch("activate_grad", [3]int{Tiles(rows), channels / 16, 1}, 128, g, sums, a, y, norm, d.Keep(), rows, channels)
}

// JoinHaar makes rows of the next block's input from channels of this one's.
func (s Set) JoinHaar(x, y, shortcut, norm, normS Pointer, rows, channels, log int) error {
	return s.line("join_haar", rows*channels, 256, x, y, shortcut, norm, normS, rows, channels, log)
}

// JoinGrad takes dx back through the Haar transform if haar is set: the rows are those of
// the block that the gradient goes back to.
func (s Set) JoinGrad(g, sums, dx, y, shortcut, norm, normS Pointer, rows, channels, log int, haar bool) error {
	n := 0
	if haar {
		n = 1
	}
	return s.launch("join_grad", [3]int{Tiles(rows), channels / 16, 1}, 128,
		g, sums, dx, y, shortcut, norm, normS, rows, channels, log, n)
}

func (s Set) NormGrad(norm, dgamma, dbeta, sums, gamma Pointer, rows, channels, dot int) error {
	return s.launch("norm_grad", [3]int{channels, 1, 1}, 128, norm, dgamma, dbeta, sums, gamma, rows, channels, dot)
}

func (s Set) NormApply(y, g, norm Pointer, rows, channels int) error {
	return s.line("norm_apply", rows*channels/4, 256, y, g, norm, rows, channels)
}

// Head is what the kernel head works on. DFeatures is zero in evaluation.
type Head struct {
	Features, Logits, DFeatures, Losses, Hits       Pointer
	Y, Shortcut, Norm, NormS, Weights, Bias, Labels Pointer
}

// Head takes so many images of a batch.
func (s Set) Head(h Head, images, batch, classes int) error {
	return s.launch("head", [3]int{images, 1, 1}, 128, h.Features, h.Logits, h.DFeatures, h.Losses, h.Hits,
		h.Y, h.Shortcut, h.Norm, h.NormS, h.Weights, h.Bias, h.Labels, batch, classes)
}

func (s Set) LinearGrad(dw, grad, features Pointer, images, classes int) error {
	return s.launch("linear_grad", [3]int{over(classes*(Features+1), 128), LinearParts(images), 1}, 128, dw, grad, features, images, classes)
}

func (s Set) Loss(state, losses, hits Pointer, images int, train bool) error {
	n := 0
	if train {
		n = 1
	}
	return s.launch("loss", [3]int{1, 1, 1}, 128, state, losses, hits, images, n)
}

// SumParts makes the gradients that lie in parts lie as the parameters do.
func (s Set) SumParts(sums, gradients, pieces Pointer, count int) error {
	return s.launch("sum_parts", [3]int{count, 1, 1}, 256, sums, gradients, pieces)
}

func (s Set) Adam(w, m, v, gradients, pieces, state Pointer, count int, lr float32) error {
	return s.launch("adam", [3]int{count, 1, 1}, 256, w, m, v, gradients, pieces, state, lr)
}
