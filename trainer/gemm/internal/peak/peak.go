// Package peak measures how many floating-point operations one core can do
// in a second, so that benchmarks can say what share of it they reach. Only
// benchmarks import it.
package peak
