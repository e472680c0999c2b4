package main

import "testing"

func TestMissedGoals(t *testing.T) {
	t.Parallel()
	naive, floor := 10.0, 2.0
	measured := func(name string, ours float64, g goal) result {
		return result{Name: name, Unit: "s", Ours: ours}.against(&naive, &floor).aimedAt(g)
	}
	good := []result{
		measured("no-goal", 1000, goal{}),
		measured("at-the-limit", 5, goal{atMost: 5}),
		measured("none", 0, goal{none: true}),
		measured("of-naive", 5, goal{ofNaive: 0.5}),
		measured("of-floor", 2.2, goal{ofFloor: 1.1}),
	}
	if err := missed(good); err != nil {
		t.Errorf("all goals are met: %v", err)
	}
	for _, bad := range []result{
		measured("above-the-limit", 5.1, goal{atMost: 5}),
		measured("not-none", 1, goal{none: true}),
		measured("above-naive", 5.1, goal{ofNaive: 0.5}),
		measured("above-floor", 2.3, goal{ofFloor: 1.1}),
		measured("one-of-two", 2.3, goal{ofNaive: 0.5, ofFloor: 1.1}),
		measured("of-agent", 6, goal{}).beside(10).aimedAt(goal{ofAgent: 0.5}),
	} {
		err := missed(append(good, bad))
		if err == nil || err.Error() != "missed goals: "+bad.Name {
			t.Errorf("%s: %v", bad.Name, err)
		}
	}
}
