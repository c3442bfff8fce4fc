/** One task: the fixed set of faults where the worker is a process of its own. */
import { testFixedFaults } from './fixed.js';

testFixedFaults('apart');
