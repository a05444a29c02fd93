package runtime

import "github.com/tare-oci/tare/test/internal/ocitest"

type devs = map[string]ocitest.Deviation

func does(s string) ocitest.Deviation { return ocitest.Deviation{Does: s} }
func skip(s string) ocitest.Deviation { return ocitest.Deviation{Does: s, Skip: true} }

// knownPeerDeviations is what other runtimes (as Debian 12 packages them: runc 1.1.5, crun 1.8.1) do instead of what a case
// wants. A case named here must fail with that runtime: so the table shows that the case can fail, and that in all other
// cases the suite and the peer agree.
var knownPeerDeviations = map[string]devs{
	"runc": {
		"TestConfig/G2_duplicate_name":                  does("last one wins"),
		"TestConfig/G2_duplicate_name_inside":           does("last one wins"),
		"TestConfig/G4_malformed_JSON":                  does("the error does not say which file"),
		"TestConfig/G4_empty_file":                      does("the error does not say which file"),
		"TestConfig/V1_no_ociVersion":                   does("accepted"),
		"TestConfig/V1_ociVersion_is_not_a_version":     does("accepted"),
		"TestConfig/V1_ociVersion_of_another_major":     does("accepted"),
		"TestConfig/A1_empty_key":                       does("accepted"),
		"TestConfig/RO2_empty_path":                     does("takes the bundle as root file system"),
		"TestConfig/RO2_symbolic_link":                  does("refused: not an absolute path, or a symlink"),
		"TestConfig/RO6_no_mount_namespace":             skip("mounts on the host"),
		"TestMounts/M6_attr_is_refused":                 does("accepted (before 1.2)"),
		"TestMounts/M10_data_on_a_bind":                 does("ignored (before 1.2)"),
		"TestMounts/MO_defaults":                        does("invalid argument: passed to the file system"),
		"TestMounts/MO_rro_on_a_file_system":            does("ignored"),
		"TestMounts/RP1_shared":                         does("private when the host's / is shared"),
		"TestMounts/RP1_unbindable":                     does("binds the root after making it unbindable"),
		"TestMounts/MA1_relative_masked_path":           does("accepted"),
		"TestMounts/MA2_relative_read-only_path":        does("accepted"),
		"TestIDMappedMounts/MO_idmap_with_its_own_maps": does("ignored (before 1.2)"),
		"TestIDMappedMounts/MO_ridmap_maps_sub-mounts":  does("ignored (before 1.2)"),
		"TestIDMappedMounts/MO_idmap_without_maps":      does("ignored (before 1.2)"),
		"TestIDMappedMounts/MO_only_one_kind_of_maps":   does("ignored (before 1.2)"),
	},
	"crun": {},
}
