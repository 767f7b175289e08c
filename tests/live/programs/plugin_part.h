int plugin_own(int x), plugin_work(int x);
