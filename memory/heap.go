package memory

// heap is a binary heap with its least item, by less, on top. It differs from
// container/heap in that an item is not boxed, which would be an allocation for
// each claim.
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

// pop takes the least item out of a heap that is not empty.
func (h *heap[T]) pop() T {
	last := len(h.items) - 1
	least := h.items[0]
	var none T
	h.items[0], h.items[last] = h.items[last], none
	h.items = h.items[:last]
	h.down(0)
	return least
}

// order makes a heap of the items in any order.
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
