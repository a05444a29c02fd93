package launch

import (
	"fmt"
	"os"
	"strconv"

	"github.com/tare-oci/tare/runtime/plan"
)

// onThread runs the plan's first part, in the parent.
func onThread(p *plan.Plan, res *Resources) error {
	for _, op := range p.Thread {
		o, ok := op.(plan.MapNamespace)
		if !ok {
			return errLower(op)
		}
		ns, err := mapNamespace(o, res)
		if err != nil {
			return fmt.Errorf("%s: %w", op.What(), err)
		}
		res.maps = append(res.maps, ns)
	}
	return nil
}

// mapNamespace opens the user namespace whose mappings a mount takes. It is closed after the clone.
func mapNamespace(o plan.MapNamespace, res *Resources) (*os.File, error) {
	if o.Path != "" {
		return res.open(o.Path)
	}
	// A child that waits in its namespace until it is killed: the descriptor keeps the namespace.
	c, err := Start(&plan.Plan{Flags: plan.NewUser, Child: []plan.Op{plan.Wait{For: "the id mappings are read"}}}, &Resources{})
	if err != nil {
		return nil, err
	}
	defer c.Abort()
	if err := c.mapIDs(plan.MapIDs{UID: o.UID, GID: o.GID}); err != nil {
		return nil, err
	}
	return res.open("/proc/" + strconv.Itoa(c.PID) + "/ns/user")
}
