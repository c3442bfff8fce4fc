/** One task: `npm run bench` on a machine with nothing but Node. */
import { runBuilt } from './setup.mjs';

await runBuilt('bench/main.js');
