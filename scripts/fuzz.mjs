/** One task: `npm run fuzz` on a fresh clone: `-- --seed N --streams M`, or `--file F` for one stream. */
import { runBuilt } from './setup.mjs';

await runBuilt('test/fuzz/main.js');
