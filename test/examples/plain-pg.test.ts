import { shopSuite } from './shop-suite.js';

shopSuite('plain-pg');
