/** One task: the proxy alone, in a process of its own, without admin database or worker. */
import { loadConfig } from '../src/config/load.js';
import { startProxy } from '../src/proxy/proxy.js';

const [, , config = '', users = ''] = process.argv;

await startProxy({ config: loadConfig({ config, users }) });
