/** One task: `npm run faults` on a machine with nothing but Node. */
import { runBuilt } from './setup.mjs';

await runBuilt('test/faults-run/main.js');
