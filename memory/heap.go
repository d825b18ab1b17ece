package memory

// heap is a binary heap with its least item, by less, on top. Unlike container/heap it
// does not box its items, which would cost each claim an allocation.
type heap[T any] struct {
	items []T
	less  func(a, b T) bool
}

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	for i := len(h.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			break
		}
		h.items[i], h.items[parent] = h.items[parent], h.items[i]
		i = parent
	}
}

// pop removes the least item of a non-empty heap and returns it.
func (h *heap[T]) pop() T {
	last := len(h.items) - 1
	least := h.items[0]
	var none T
	h.items[0], h.items[last] = h.items[last], none
	h.items = h.items[:last]
	h.down(0)
	return least
}

// order turns items in any order into a heap.
func (h *heap[T]) order() {
	for i := len(h.items)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *heap[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.items); child++ {
			if h.less(h.items[child], h.items[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.items[i], h.items[least] = h.items[least], h.items[i]
		i = least
	}
}
