"""What `make vmtest` runs on each kernel: something of every kind that the kernel decides.

The whole suite would take more than an hour in a guest, which is slower by a factor of fifteen:
`NSEXT_VM=full make vmtest` runs it.  Values, the command line, errors of Python's and storms are
the same on every kernel, and are not here; nor is what takes long.
"""

NAMES = {
    "vm/test_cgroup_limits.py": """
        limits_are_in_the_files controllers_are_enabled_for_the_parents_children
        memory_of_a_child_of_the_program_counts pids_max_holds pids_max_that_leaves_no_room
        cpu_time_limit_in_a_group frozen_with_limits""",
    "test_steps.py": """
        gate gate_fails setgroups_deny uid_map_fails unshare unshare_fails time_offsets
        time_offsets_fail enter_time hostname loopback propagation propagation_fails mount_proc
        mount_proc_fails fds setsid rlimit affinity umask default_signals exec exec_fails""",
    "test_attribute_steps.py": "oom_score_adj",
    "test_helper_steps.py": """
        helper join join_as_root mapped_id setuid init init_death relay show checkpoint
        limit_userns no_userns""",
    "test_mount_steps.py": """
        bind sources_are_those_from_before_the_first_mount mount_fs mount_fs_fails
        what_a_file_system_says_is_the_hint overlay mask change make pivot idmap
        idmap_of_what_cannot_be_mapped reenter files_belong_to_somebody_where_the_own_id_is_not_mapped
        in_a_chroot""",
    "test_initramfs.py": "a_root_on_an_initramfs",
    "test_rootless_mounts.py": "a_writable_overlay_is_still_one",
    "test_fallbacks.py": "the_root_directory_is_bound_without_the_workshop",
    "test_namespaces.py": """
        every_pair fresh_proc_has_safe_flags unprivileged_each_kind_with_user unprivileged_set_up
        children_of_the_program_are_in_its_time_namespace""",
    "test_join.py": """
        each_kind a_process_is_all_kinds_that_differ pids_of_a_joined_pid_namespace
        ranged_maps_below_a_join the_root_of_a_joined_mount_namespace_stays""",
    "test_idmaps.py": "ranges_of_root 340_lines trap_2_dumpable_stays",
    "test_init.py": """
        pids background_children_end_with_the_namespace killing_the_init_kills_the_program
        terminate_with_an_init""",
    "test_cgroup.py": """
        by_path body_is_the_helper with_join_and_new freeze_and_thaw kill_takes_all
        kill_before_there_was_cgroup_kill an_invalid_group""",
    "test_cgroup_own.py": "with_join root_of_a_cgroup_namespace peak_is_the_programs_own",
    "test_landlock.py": "a_rule_for_one_file ports",
    "test_seccomp.py": "what_is_refused_by_arguments several_in_order",
    "test_privilege_steps.py": """
        keep_capabilities capabilities no_new_privs keyring seccomp landlock landlock_path
        landlock_port landlock_restrict""",
    "test_privileges.py": "inheritable_ones_are_emptied securebits",
    "test_disable_userns.py": "the_namespaces_are_its_own",
    "test_namespace_objects.py": "unique_id",
    "test_listing.py": "by_the_kernels_own_list",
    "test_process.py": "trap_44_a_pid_used_again_is_not_signalled trap_28_sigchld_ignored",
    "test_popen.py": "status_stolen_by_waitpid",
    "test_check.py": "as_root",
}
SELECTION = [
    f"tests/{file}::test_{name}" for file, names in NAMES.items() for name in names.split()
]
SELECTION += [
    "tests/test_fallbacks.py::test_all_namespaces[all of it]",
    "tests/test_fallbacks.py::test_all_descriptors_are_closed[both ENOSYS]",
]
