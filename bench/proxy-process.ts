/** One task: the proxy alone, in a process of its own, without admin database or worker. */
import { loadConfig } from '../src/config/load.js';
import { startProxy } from '../src/proxy/proxy.js';
import { listening } from '../src/cli/demo/own-process.js';

const [, , config = '', users = ''] = process.argv;
const GRACE_MS = 1_000;

const proxy = await startProxy({ config: loadConfig({ config, users }) });
listening(proxy.address.port, () => proxy.close(GRACE_MS));
